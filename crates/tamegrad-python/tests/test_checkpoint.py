"""A guard's state goes with a checkpoint: a resumed run is judged as the uninterrupted one."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.distributed.checkpoint as dcp
from conftest import OPTIMIZERS, Run, batches, learn, mlp, state_bits, watched
from torch import nn

import tamegrad
from tamegrad._ranks import _largest

STEPS = 210
"""Few enough for protect not to rewind, which needs snapshots of before the interruption."""


def net() -> nn.Sequential:
    """Batch norm has buffers, and the unit without a bound lets gradients grow with inputs."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, 4),
    )


def start(mode: str, steps: int = 0, **options) -> Run:
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    options = {"trace_every": 30, "snapshot_every": 40, **options}
    guard = tamegrad.watch(model, optimizer, mode, strict=True, **options)
    run = Run(model, optimizer, guard, [])
    go_on(run, range(steps))
    return run


def go_on(run: Run, steps: range) -> None:
    """Steps with a gradient spike at 150, a batch that is not finite at 170, and a rate that is far
    too high at 190."""
    for step, (x, y) in enumerate(batches(steps.stop)):
        if step < steps.start:
            continue
        if step == 170:
            x = x.clone()
            x[0, 0] = torch.inf
        run.optimizer.param_groups[0]["lr"] = 3.0 if step == 190 else 1e-3
        logits = run.model(x)
        loss = nn.functional.cross_entropy(logits, y) * (3e3 if step == 150 else 1.0)
        learn(loss, run.optimizer)
        accuracy = float((logits.argmax(1) == y).float().mean()) if step % 10 == 9 else None
        # Logged after the step, all this counts for the next one, except for the loss of step 170.
        run.guard.log(loss=loss, metric=accuracy, targets=x[:, :1], inputs=x)
        run.losses.append(loss.item())


def saved(run: Run) -> bytes:
    """A checkpoint, with a guard as any other part of it."""
    parts = {"model": run.model, "optimizer": run.optimizer, "guard": run.guard}
    file = io.BytesIO()
    torch.save({name: part.state_dict() for name, part in parts.items()}, file)
    return file.getvalue()


def load_into(run: Run, checkpoint: bytes) -> Run:
    parts = torch.load(io.BytesIO(checkpoint), weights_only=True)
    run.model.load_state_dict(parts["model"])
    run.optimizer.load_state_dict(parts["optimizer"])
    run.guard.load_state_dict(parts["guard"])
    return run


def told(run: Run) -> list[str]:
    """All that a guard says, and all that it knows."""
    guard = run.guard
    actions = [
        (step, a.action, a.factor, a.factors, a.learning_rate) for step, a in guard.actions()
    ]
    return [repr(guard.findings()), repr(actions), str(guard.diagnosis()), repr(guard.state_dict())]


@pytest.mark.parametrize("at", [1, 120, 151, 171, 191])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(mode, at):
    whole = start(mode, at)
    resumed = load_into(start(mode), saved(whole))
    assert told(resumed) == told(whole)
    for run in (whole, resumed):
        go_on(run, range(at, STEPS))
    assert repr(resumed.losses) == repr(whole.losses[at:])
    assert state_bits(resumed.model, resumed.optimizer) == state_bits(whole.model, whole.optimizer)
    # The graph of a loss is no part of a state, so its operation is known only where no state was saved
    # between the loss and the step that it counts for.
    is_graph_lost = at == 171 and mode == "protect"
    assert (
        told(resumed)[: 2 if is_graph_lost else None] == told(whole)[: 2 if is_graph_lost else None]
    )
    assert resumed.guard.diagnosis().cause == whole.guard.diagnosis().cause
    assert {finding.step for finding in whole.guard.findings()} >= {150, 170}
    acted = {step for step, _ in whole.guard.actions()}
    # The loss times 3,000, the Inf, and the rate of step 190, which is lowered before its update is made.
    assert acted == ({150, 170, 190} if mode == "protect" else set())


def test_a_guard_that_begins_anew_judges_otherwise():
    whole = start("protect", 120)
    resumed = start("protect")
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.optimizer.load_state_dict(whole.optimizer.state_dict())
    for run in (whole, resumed):
        go_on(run, range(120, STEPS))
    assert told(resumed)[1] != told(whole)[1]


def test_a_guard_goes_back_to_its_own_earlier_state():
    run = start("protect", 120)
    checkpoint = saved(run)
    go_on(run, range(120, STEPS))
    expected = told(run)
    load_into(run, checkpoint)
    assert run.guard.step_number == 120
    assert run.guard.findings() == []
    go_on(run, range(120, STEPS))
    assert told(run) == expected


def test_a_state_of_before_the_first_step_is_a_new_guard():
    whole = start("protect")
    resumed = load_into(start("protect"), saved(whole))
    for run in (whole, resumed):
        go_on(run, range(60))
    assert told(resumed) == told(whole)


def test_no_finding_is_told_twice():
    whole = start("observe", 160)
    heard: list[int] = []
    resumed = start("observe", on_finding=lambda finding: heard.append(finding.step))
    go_on(load_into(resumed, saved(whole)), range(160, STEPS))
    assert heard == [finding.step for finding in resumed.guard.findings() if finding.step >= 160]
    assert resumed.guard.findings()[0].step < 160


def test_mode_and_options_are_those_of_the_guard_that_goes_on():
    whole = start("protect", STEPS)
    lowered = whole.guard.actions()[-1][1].learning_rate
    assert lowered < 1.0
    watching = load_into(start("observe", total_steps=1000), saved(whole))
    count = len(watching.guard.actions())
    go_on(watching, range(STEPS, STEPS + 10))
    assert watching.guard.mode == "observe"
    assert len(watching.guard.actions()) == count
    assert watching.guard._steps.core.learning_rate_factor() == 1.0


def test_there_is_nothing_to_rewind_to_until_the_next_snapshot():
    class Planted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

    # Without a matrix there is no update by which a jump of the loss would be the data's.
    model = Planted()
    rewound: list[int] = []
    options = {"snapshot_every": 25, "snapshots_max": 8, "on_rewind": rewound.append}
    optimizer, guard = watched(model, "protect", lr=1e-3, **options)
    for step in range(400):
        if step == 240:
            guard.load_state_dict(guard.state_dict())
        level = 1.0 if step < 250 else 60.0
        # Norms that differ: ten of the same would be taken for a clip's.
        slope = 0.01 * (1.0 + 0.1 * (step % 3))
        loss = model.weight.square().sum() * 0.0 + model.weight.mean() * slope + level
        learn(loss, optimizer, guard)
        if rewound:
            break
    assert rewound == [250], guard.actions()


def test_distributed_checkpoint_takes_the_guard_as_it_is(tmp_path):
    whole = start("protect", 160)
    dcp.save({"guard": whole.guard}, checkpoint_id=tmp_path, no_dist=True)
    resumed = start("protect")
    dcp.load({"guard": resumed.guard}, checkpoint_id=tmp_path, no_dist=True)
    assert told(resumed) == told(whole)


def test_a_state_of_another_model_is_refused():
    whole = start("observe", 40)
    state = whole.guard.state_dict()
    for model, message in [
        (mlp(2), r"layer 5: got module '5', want one of the \d+ modules"),
        (nn.Sequential(*net(), nn.Linear(4, 4)), "tensors: got 8, want 10"),
        (
            nn.Sequential(*net()[:5], nn.Module(), nn.Linear(32, 4)),
            "tensor 6: got `5.weight`, want `6.weight`",
        ),
    ]:
        _, guard = watched(model)
        before = guard.state_dict()
        with pytest.raises(ValueError, match=message):
            guard.load_state_dict(state)
        assert guard.state_dict() == before


def test_what_is_no_state_is_refused_and_the_guard_stays_as_it_is():
    run = start("protect", 40)
    good = run.guard.state_dict()
    core = good["core"]
    flipped = bytes([*core[:500], core[500] ^ 1, *core[501:]])
    before = told(run)
    for change, message in [
        ({"version": 3}, "got version 3, want version 2"),
        ({"core": core[:100]}, "got 100 bytes of a guard's state, want"),
        ({"core": flipped}, "damaged: got checksum"),
        ({"core": b"PK"}, "want the state of a guard"),
        ({"core": b""}, "got 0 bytes of a guard's state, want a header"),
        ({"core": None}, "got step 40 without the core's bytes"),
        ({"core": torch.zeros(3)}, "want bytes or None"),
        ({"step": -1}, r"state\['step'\]: got -1, want a count"),
        ({"step": True}, "got True, want a count"),
        ({"modules": ["nowhere"], "calls": [0]}, "got module 'nowhere'"),
        ({"calls": [0]}, "want the same number of both"),
        ({"inputs": [1, 2]}, "want seven numbers"),
        ({"loss": "high"}, "got 'high', want a float"),
    ]:
        with pytest.raises(ValueError, match=message):
            run.guard.load_state_dict({**good, **change})
    for state in ({}, [], b"", None, {k: v for k, v in good.items() if k != "culprits"}):
        with pytest.raises(ValueError, match="got .* want .*"):
            run.guard.load_state_dict(state)
    assert told(run) == before
    go_on(run, range(40, 50))


def test_inputs_that_were_logged_before_count_among_ranks_by_their_numbers():
    assert _largest((9, 0, 0, 1, 4.0, 3.5, 0.1)) == 3.5
    assert _largest((9, 0, 2, 1, 4.0, 3.5, 0.1)) == math.inf
    assert math.isnan(_largest((9, 1, 2, 1, 4.0, 3.5, 0.1)))
