"""Watching changes nothing; protecting leaves out, scales, lowers and rewinds."""

from __future__ import annotations

import html
import math
import re
import subprocess
import sys

import pytest
import torch
from conftest import (
    OPTIMIZERS,
    Exp,
    Switch,
    acted,
    batches,
    learn,
    loop,
    loss_of,
    mlp,
    same_weights,
    state_bits,
    times,
    train,
    watched,
)
from torch import nn

import tamegrad


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_watched_run_is_the_bare_run_to_the_bit(mode, optimizer):
    bare, run = (train(m, optimizer=optimizer) for m in (None, mode))
    assert run.losses == bare.losses
    assert state_bits(run.model, run.optimizer) == state_bits(bare.model, bare.optimizer)
    assert run.guard.actions() == []


def test_dropout_and_batch_norm_see_the_same_chance(mode):
    def net():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4)
        )

    bare, run = (train(m, model=net(), trace_every=5) for m in (None, mode))
    assert state_bits(run.model, run.optimizer) == state_bits(bare.model, bare.optimizer)


def poison(at: int):
    """One batch with an Inf."""

    def plant(step, model, optimizer, x):
        if step == at:
            x = x.clone()
            x[0, 0] = math.inf
        return x

    return plant


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_that_is_not_finite_is_left_out_to_the_bit(optimizer):
    states = {}

    def plant(step, model, made, x):
        if step in (30, 31):
            states[step] = state_bits(model, made)
        return poison(30)(step, model, made, x)

    run = train("protect", optimizer=optimizer, at_step=plant)
    assert states[31] == states[30]
    assert acted(run.guard) == [(30, "skip")]
    assert math.isfinite(run.losses[-1])
    assert not math.isfinite(train(None, optimizer=optimizer, at_step=poison(30)).losses[-1])


def test_batch_norm_does_not_keep_the_batch_that_was_left_out():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    means = {}

    def plant(step, model, optimizer, x):
        if step in (30, 31):
            means[step] = model[1].running_mean.clone()
        return poison(30)(step, model, optimizer, x)

    run = train("protect", model=model, at_step=plant)
    # What the 30 good batches before it have left, not what the model began with.
    assert means[30].any() and torch.equal(means[31], means[30])
    assert math.isfinite(run.losses[-1])


def test_observe_names_onset_and_first_producer_of_a_non_finite_value():
    model = nn.Sequential(*mlp(3)[:6], Exp(), nn.Linear(32, 4))

    def plant(step, model, optimizer, x):
        if step == 40:
            with torch.no_grad():
                model[4].bias.fill_(0.0)
                model[6].register_forward_pre_hook(lambda m, a: (a[0] * 200.0,))
        return x

    run = train("observe", model=model, at_step=plant, steps=50)
    diagnosis = run.guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset, diagnosis.origin) == ("exploded", 40, "6")
    assert diagnosis.cause == "activation"
    assert "exp" in str(diagnosis)


def test_a_pass_that_is_repeated_after_an_alarm_shows_the_gains_of_the_way_back():
    def plant(step, model, optimizer, x):
        if step == 133:
            with torch.no_grad():
                model[4].weight.mul_(50.0)
        return x

    model = mlp(3, activation=nn.ReLU)
    run = train("observe", model=model, at_step=plant, steps=134, log_before=True)
    diagnosis = run.guard.diagnosis()
    assert (diagnosis.onset, diagnosis.origin) == (133, "4")
    gains = {gain["layer"]: gain for gain in diagnosis.to_dict()["chain"]["layers"]}
    assert gains["4"]["forward"] > 20.0
    assert gains["4"]["backward"] > 20.0
    assert gains["2"]["backward"] < 5.0


def test_a_layer_that_let_its_input_through_is_named_when_it_does_so_no_more():
    layers = mlp(3, activation=nn.ReLU)
    model = nn.Sequential(*layers[:4], Switch(), *layers[4:])

    def plant(step, model, optimizer, x):
        model[4].on = step == 150
        return x

    run = train("observe", model=model, at_step=plant, steps=151)
    assert "4" in run.guard._steps.passes.probes.owners
    assert (run.guard.diagnosis().onset, run.guard.diagnosis().origin) == (150, "4")


def test_another_task_is_learned_as_without_a_guard(mode):
    def start(mode):
        model = mlp()
        optimizer, guard = watched(
            model, mode, lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9), 0.05
        )
        losses = []
        for step, (x, y) in enumerate(batches(400)):
            loss = loss_of(model, x, (y + 1) % 4 if step >= 250 else y)
            learn(loss, optimizer, guard)
            losses.append(loss.item())
        return model, guard, losses

    (bare, _, losses), (model, guard, got) = start(None), start(mode)
    assert max(losses[250:255]) > 3.0 * max(losses[:3]) > losses[249], "the jump is a large one"
    assert got == losses
    assert same_weights(bare, model)
    assert guard.actions() == [] and guard.diagnosis().onset is None


def test_a_spike_is_scaled_before_the_moments_see_it():
    def second_moment(run):
        state = run.optimizer.state[next(run.model.parameters())]
        return float(state["exp_avg_sq"].max())

    # An unbounded network: the gradient grows with its input.
    runs = [
        train(m, model=mlp(activation=nn.ReLU), steps=152, at_step=times(3e3, 150))
        for m in ("observe", "protect")
    ]
    assert second_moment(runs[1]) < 1e-3 * second_moment(runs[0])
    assert [action for step, action in acted(runs[1].guard) if step == 150][0] in (
        "scale",
        "scale-all",
    )


def test_scaling_in_place_bumps_the_version_that_torch_keeps():
    parameter = nn.Parameter(torch.ones(4))
    parameter.grad = torch.ones(4)
    version = parameter.grad._version
    guard = tamegrad.watch(
        nn.ParameterList([parameter]), torch.optim.SGD([parameter], lr=1.0), strict=True
    )
    guard.clip_(0.5)
    assert parameter.grad._version > version
    assert parameter.grad.tolist() == [0.25] * 4


def test_an_update_that_would_overthrow_a_matrix_is_made_anew():
    weights = {}

    def plant(step, model, optimizer, x):
        weights[step] = model[0].weight.detach().clone()
        optimizer.param_groups[0]["lr"] = 3e3 if step == 150 else 1e-2
        return x

    bare, run = (train(m, optimizer="sgd", steps=160, at_step=plant) for m in (None, "protect"))
    change = float((weights[151] - weights[150]).norm() / weights[150].norm())
    assert change <= 0.1 + 1e-6
    assert max(run.losses[151:]) < 3.0 < max(bare.losses[151:])


def test_the_learning_rate_is_lowered_without_the_scheduler_seeing_it():
    model = mlp()
    optimizer, guard = watched(model, "protect")
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.999)
    rates = []
    for step, (x, y) in enumerate(batches(260)):
        loss = loss_of(model, x, y)
        learn(loss * 1e4 if step > 200 and step % 10 == 0 else loss, optimizer, guard)
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02 * 0.999 ** (step + 1) for step in range(260)], rel=1e-12)
    assert min(action.learning_rate for _, action in guard.actions()) < 0.5


def test_a_loss_that_stays_up_is_rewound():
    told = []

    def plant(step, model, optimizer, x):
        if step == 260:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * 3.0)
        return x

    run = train(
        "protect",
        steps=330,
        at_step=plant,
        snapshot_every=25,
        snapshots_max=8,
        on_rewind=told.append,
    )
    rewinds = [action.rewind for _, action in run.guard.actions() if action.rewind is not None]
    assert rewinds and rewinds == told
    assert run.losses[-1] < 0.8 < train(None, steps=330, at_step=plant).losses[-1]


def test_snapshots_put_back_every_bit():
    from tamegrad._state import StateCopy, random_state, set_random_state

    run = train(None, steps=5, optimizer="adamw")
    copy = StateCopy(list(run.model.parameters()), [run.optimizer])
    for _ in range(2):
        copy.take()
        chance = random_state()
        before, drawn = state_bits(run.model, run.optimizer), torch.rand(3)
        loop(run.model, run.optimizer, steps=3)
        assert state_bits(run.model, run.optimizer) != before
        copy.restore()
        set_random_state(chance)
        assert state_bits(run.model, run.optimizer) == before
        assert torch.equal(torch.rand(3), drawn)


def test_a_snapshot_of_an_optimizer_that_has_no_state_yet():
    from tamegrad._state import StateCopy

    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    copy = StateCopy(list(model.parameters()), [optimizer])
    copy.take()
    learn(loss_of(model, torch.ones(2, 16), torch.tensor([0, 1])), optimizer)
    copy.restore()
    assert not optimizer.state


def test_detaching_leaves_no_hook():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    hooks = lambda: (  # noqa: E731
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        [name for m in model.modules() for name in vars(m) if name == "_compiled_call_impl"],
        len(optimizer._optimizer_step_pre_hooks),
        len(optimizer._optimizer_step_post_hooks),
    )
    before = hooks()
    with tamegrad.watch(model, optimizer) as guard:
        assert hooks() != before
        model(torch.ones(1, 16)).sum().backward()
        optimizer.step()
    assert hooks() == before
    assert guard.diagnosis().verdict == "too-early"


def test_an_error_inside_is_shown_once_and_ends_the_watching(told):
    model = mlp()
    optimizer, guard = watched(model, strict=False)
    guard._steps.update.before = None
    loop(model, optimizer, steps=3)
    assert len(told()) == 1 and "stopped watching at step 0: TypeError" in told()[0]
    assert not guard._hooks._handles
    strict = tamegrad.watch(model, optimizer, strict=True)
    strict._steps.update.before = None
    with pytest.raises(TypeError):
        optimizer.step()


def test_a_loss_of_several_elements_is_refused_and_the_watching_goes_on():
    model = mlp()
    optimizer, guard = watched(model, strict=False)
    with pytest.raises(ValueError, match=r"loss: got a tensor of shape \(3,\)"):
        guard.log(loss=torch.ones(3))
    model(next(batches(1))[0]).sum().backward()
    optimizer.step()
    assert (guard.step_number, guard.failure) == (1, None)


def test_importing_does_not_import_torch():
    code = "import tamegrad, sys; assert 'torch' not in sys.modules; print(tamegrad.Diagnosis.__name__)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout == "Diagnosis\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            lambda m, o: (m, o, "guard"),
            "mode: got 'guard', want one of 'observe', 'protect', 'off'",
        ),
        (lambda m, o: ("net", o), "model: got str, want a torch.nn.Module"),
        (lambda m, o: (m, [m]), "optimizer: got Sequential, want a torch.optim.Optimizer"),
        (lambda m, o: (m, []), "optimizer: got none, want at least one"),
    ],
)
def test_what_cannot_be_watched_is_said(arguments, error):
    model = mlp()
    with pytest.raises((TypeError, ValueError), match=error):
        tamegrad.watch(*arguments(model, torch.optim.SGD(model.parameters(), lr=0.1)))


def test_gradients_that_somebody_has_clipped_are_noticed(told):
    model = mlp()
    optimizer, guard = watched(model, lr=0.01)
    for x, y in batches(12):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
    assert told() == []
    assert "note: the gradients arrive clipped to a norm of 0.001" in str(guard.diagnosis())


def test_a_diagnosis_as_text_json_and_html():
    run = train("observe", at_step=poison(30))
    diagnosis = run.guard.diagnosis()
    report = diagnosis.to_dict()
    assert report["verdict"] == diagnosis.verdict == "exploded"
    assert report["onset_step"] == 30
    assert report["remedies"][0]["label"] == diagnosis.remedies[0].name
    page = diagnosis.to_html()
    assert page.startswith("<!DOCTYPE html>")
    assert "The run ended with NaN or Inf after the alarm at step 30" in page
    assert "<script" not in page
    shown = diagnosis._repr_html_()
    assert html.unescape(re.search(r'srcdoc="([^"]*)"', shown)[1]) == page
    assert repr(diagnosis).startswith("Diagnosis(verdict='exploded', onset=30")
    assert diagnosis.findings[0].severity == "alarm"
