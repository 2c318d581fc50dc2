"""Taking a step again under other conditions, and the rows that break it."""

from __future__ import annotations

import copy
import json
import random
import time
from types import SimpleNamespace

import numpy
import pytest
import torch
from conftest import batches, loop, mlp, state_bits, times, watched
from torch import nn

import tamegrad
from tamegrad import _bisect, _core, _rows

functional = nn.functional


def incident_of(folder, model, batch, optimizer=None, **options):
    """What is kept of a model and a batch."""
    guard = tamegrad.watch(model, optimizer, strict=True, **options)
    incident = tamegrad.load_incident(guard.dump(folder, batch=batch))
    guard.close()
    return incident


def cross_entropy(model, batch):
    x, y = batch
    return functional.cross_entropy(model(x), y)


def breaking(found) -> dict[str, bool | None]:
    return {row.name: row.breaks for row in found.table if row.state == "ran"}


def idle(found) -> dict[str, str]:
    return {row.name: f"{row.state}: {row.why}" for row in found.table if row.state != "ran"}


def row(found, name: str):
    return next(row for row in found.table if row.name == name)


def test_an_overflow_of_half_precision_is_finite_in_float32(tmp_path):
    model = mlp().half()
    x, y = next(batches(1))
    incident = incident_of(tmp_path, model, ((x * 1e4).half(), y))
    found = tamegrad.bisect(incident, model, lambda m, b: m[0](b[0]).square().mean())
    assert breaking(found) == {"again": True, "again-2": True, "f32": False, "f64": False}
    assert idle(found) == {
        "no-autocast": "does-not-apply: no autocast is on",
        "no-compile": "does-not-apply: nothing is compiled",
        "plain-attention": "does-not-apply: there is no fused attention",
        "no-dropout": "does-not-apply: no dropout is active",
        "cpu": "does-not-apply: the step runs on the CPU already",
        "update": "does-not-apply: no optimizer was given",
        "larger-eps": "does-not-apply: no optimizer was given",
        "f32-state": "does-not-apply: no optimizer was given",
    }
    assert row(found, "f32").gradient_norm == pytest.approx(row(found, "f64").gradient_norm, 1e-4)
    assert row(found, "f32").largest < row(found, "f32").gradient_norm
    assert found.rows == []
    assert "every row breaks on its own" in str(found)
    assert found.is_repeatable


def test_autocast_is_turned_off_also_within_step_fn(tmp_path):
    model = mlp()
    x, y = next(batches(1))
    context = torch.autocast("cpu", dtype=torch.float16)

    def step_fn(model, batch):
        with context:
            output = model[0](batch)
        return output.float().square().mean()

    enter = torch.autocast.__enter__
    incident = incident_of(tmp_path, model, x * 1e5)
    found = tamegrad.bisect(incident, model, step_fn)
    assert breaking(found) == {
        "again": True,
        "again-2": True,
        "f32": False,
        "f64": False,
        "no-autocast": False,
    }
    assert torch.autocast.__enter__ is enter
    assert context._enabled


@pytest.mark.parametrize("bad", [[37], [0], [63], [5, 41]])
def test_rows_that_are_nan_are_found(tmp_path, bad):
    model = mlp()
    x, y = next(batches(1, size=64))
    x[bad, 3] = float("nan")
    incident = incident_of(tmp_path, model, {"x": x, "y": y, "weight": torch.ones(4)})

    def step_fn(model, batch):
        return functional.cross_entropy(model(batch["x"]), batch["y"], batch["weight"])

    found = tamegrad.bisect(incident, model, step_fn)
    assert (found.rows, found.size) == (bad, 64)
    assert found.row_sets == [[place] for place in bad]
    assert found.smallest_batch["x"].shape == (1, 16)
    assert bool(found.smallest_batch["x"].isnan().any())
    assert found.smallest_batch["weight"].shape == (4,)
    assert f"rows: {' or '.join(map(str, bad))} of 64 (counted from 0) break the step" in str(found)


def test_a_pair_of_rows_that_breaks_it_together_is_found(tmp_path):
    x, _ = next(batches(1, size=64))
    x[50] = x[11]

    def step_fn(model, batch):
        h = model(batch)
        far = (h[:, None] - h[None]).square().sum(-1)
        pairs = torch.triu_indices(len(h), len(h), 1)
        return far[pairs[0], pairs[1]].sqrt().sum() if len(h) > 1 else h.sum()

    model = mlp()
    found = tamegrad.bisect(incident_of(tmp_path, model, x), model, step_fn)
    assert found.row_sets == [[11, 50]]
    assert row(found, "again").finite_loss
    assert row(found, "again").finite_gradients is False
    assert "gradient" in str(found).splitlines()[3]


def test_a_huge_gradient_of_one_row_breaks_it_though_it_is_finite(tmp_path):
    model = nn.Linear(16, 1)
    x, _ = next(batches(1, size=64))
    x[23] *= 1e3
    incident = incident_of(tmp_path, model, x)
    found = tamegrad.bisect(incident, model, lambda m, b: m(b).square().mean())
    assert found.rows == [23]
    assert found.limit < row(found, "again").gradient_norm
    found = tamegrad.bisect(incident, model, lambda m, b: m(b).square().mean(), limit=1e30)
    assert breaking(found)["again"] is False
    assert found.notes == [_bisect._NOT_BROKEN]


def test_an_eps_that_is_nothing_in_half_precision_breaks_the_update(tmp_path):
    model = mlp().half()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-8, foreach=False)
    x, y = next(batches(1))
    incident = incident_of(tmp_path, model, (x.half(), y), optimizer)
    # The first element is not reached: its gradient is zero, and so is the square.
    incident.batch[0][:, 0] = 0
    found = tamegrad.bisect(incident, model, cross_entropy, optimizer=optimizer)
    update = {name: row(found, name).breaks for name in ("update", "larger-eps", "f32-state")}
    assert update == {"update": True, "larger-eps": False, "f32-state": False}
    assert breaking(found)["again"] is False
    assert "every row breaks on its own" in str(found)
    assert not optimizer.state
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    incident = incident_of(tmp_path, model, (x.half(), y), other)
    found = tamegrad.bisect(incident, model, cross_entropy, optimizer=other)
    assert idle(found)["larger-eps"] == "does-not-apply: the optimizer has no eps"
    assert breaking(found)["update"] is False


def test_dropout_that_breaks_it_is_told_from_the_rest(tmp_path):
    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

        def forward(self, x):
            return self.drop(self.layer(x).square() + 1).log()

    model = Log()
    incident = incident_of(tmp_path, model, torch.ones(8, 4))
    found = tamegrad.bisect(incident, model, lambda m, b: m(b).mean())
    assert breaking(found) == {
        "again": True,
        "again-2": True,
        "f64": True,
        "no-dropout": False,
    }
    model.eval()
    incident = incident_of(tmp_path, model, torch.ones(8, 4))
    model.train()
    found = tamegrad.bisect(incident, model, lambda m, b: m(b).mean())
    assert breaking(found)["again"] is False, "it is in evaluation as it was"


@pytest.mark.parametrize("are_kept", [True, False])
def test_each_repetition_draws_the_same_and_has_the_modes_of_the_step(
    tmp_path, monkeypatch, are_kept
):
    if not are_kept:
        monkeypatch.setattr("tamegrad._incident_writer._BYTES_MAX", 3000)
    model = nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.5), nn.Dropout(0.5), nn.Linear(64, 4))
    model[2].eval()
    x, y = next(batches(1, size=8))
    incident = incident_of(tmp_path, model, (x, y))
    want = cross_entropy(model, (x, y)).item()
    model.train()
    found = tamegrad.bisect(incident, model, cross_entropy)
    assert ["parameters are the current ones of the model" in n for n in found.notes] == [
        *([] if are_kept else [True]),
        False,
    ]
    assert row(found, "again").loss == want
    assert found.is_repeatable is True
    assert row(found, "no-dropout").loss != want


def test_an_attention_with_a_row_that_is_masked_is_taken_plainly(tmp_path):
    model = nn.Linear(8, 8)

    def step_fn(model, x):
        h = model(x)
        return functional.scaled_dot_product_attention(h, h, h).sum()

    incident = incident_of(tmp_path, model, torch.randn(2, 4, 8))
    found = tamegrad.bisect(incident, model, step_fn)
    assert breaking(found)["plain-attention"] is False
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize("way", ["wrapped", "in place"])
def test_a_compiled_model_is_taken_without_compiling(tmp_path, way, monkeypatch):
    seen = []
    # A copy is compiled anew with the usual backend, which needs a compiler for C++.
    own = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: own(module, backend="eager"))

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x):
            output = self.layer(x)
            return output if not torch.compiler.is_compiling() else output * float("nan")

    inner = Plain()
    model = torch.compile(inner, backend="eager") if way == "wrapped" else inner
    if way == "in place":
        inner.compile()
    incident = incident_of(tmp_path, model, torch.ones(4, 4))

    def step_fn(model, batch):
        seen.append(type(model).__name__)
        return model(batch).sum()

    found = tamegrad.bisect(incident, model, step_fn)
    assert row(found, "no-compile").breaks is False
    assert row(found, "again").breaks is True
    assert set(seen) == {"OptimizedModule" if way == "wrapped" else "Plain"}


def test_a_loss_that_is_not_that_of_the_step_is_told(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, incidents=tmp_path)
    loop(model, optimizer, guard, steps=22, at_step=times(float("inf"), at=20))
    found = guard.bisect(lambda m, b: m(b).sum())
    assert found.is_reproduced is True
    found = guard.bisect(lambda m, b: m(b.nan_to_num(0, 0, 0)).square().sum())
    assert found.is_reproduced is False
    assert "note: the loss is" in str(found)
    assert "and was nan: batch, parameters, random state or step_fn" in str(found)


def test_a_step_that_differs_is_told(tmp_path):
    model = mlp()
    count = iter(range(1000))
    incident = incident_of(tmp_path, model, next(batches(1)))
    found = tamegrad.bisect(
        incident, model, lambda m, b: cross_entropy(m, b) * (1 + next(count)) * float("inf")
    )
    assert found.is_repeatable is True, "infinite both times"
    found = tamegrad.bisect(incident, model, lambda m, b: cross_entropy(m, b) * (1 + next(count)))
    assert found.is_repeatable is False
    assert "the same step gave different bits twice" in str(found)

    def same_loss(model, batch):
        loss = cross_entropy(model, batch)
        return loss + next(count) * (loss - loss.detach())

    assert tamegrad.bisect(incident, model, same_loss).is_repeatable is False, "by its gradient"


def test_the_run_of_the_user_stays_as_it_was_to_the_bit(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))
    optimizer, guard = watched(model, kind=torch.optim.Adam, incidents=tmp_path)
    loop(model, optimizer, guard, steps=25, at_step=times(float("nan"), at=20))
    model[1].eval()
    random.seed(1), numpy.random.seed(1), torch.manual_seed(1)

    def look():
        settings = (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        )
        chance = (random.getstate(), str(numpy.random.get_state()), torch.get_rng_state().tolist())
        grads = [(id(p.grad), p.grad.clone().tolist()) for p in model.parameters()]
        modes = [module.training for module in model.modules()]
        versions = [p._version for p in model.parameters()]
        groups = str(
            [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        )
        return state_bits(model, optimizer), settings, chance, str(grads), modes, versions, groups

    before, findings = look(), str(guard.diagnosis())
    state = guard.state_dict()

    def step_fn(model, batch):
        batch.add_(1.0)
        torch.use_deterministic_algorithms(True)
        torch.set_default_dtype(torch.float64)
        torch.set_default_dtype(torch.float32)
        random.random(), numpy.random.rand(), torch.rand(3)
        return model(batch).square().mean()

    found = guard.bisect(step_fn)
    assert breaking(found)["again"]
    assert idle(found)["update"] == "does-not-apply: the step breaks before its update"
    assert look() == before
    found = guard.bisect(lambda model, batch: step_fn(model, batch.nan_to_num(0, 0, 0)))
    assert breaking(found)["update"] is False
    assert look() == before
    assert str(guard.diagnosis()) == findings
    assert guard.state_dict() == state
    incident = tamegrad.load_incident(guard.incident_folder)

    def raises(model, batch):
        torch.use_deterministic_algorithms(True)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        tamegrad.bisect(incident, model, raises, optimizer=optimizer)
    assert look() == before


def test_the_precision_of_products_is_put_back(tmp_path):
    model, seen = mlp(), []
    incident = incident_of(tmp_path, model, next(batches(1)))

    def step_fn(model, batch):
        seen.append(torch.get_float32_matmul_precision())
        return cross_entropy(model, batch)

    torch.set_float32_matmul_precision("high")
    try:
        tamegrad.bisect(incident, model, step_fn)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert set(seen) == {"high", "highest"}, "float64 is taken with the highest"


def test_the_step_is_taken_with_the_parameters_of_the_incident(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, incidents=tmp_path)

    def plant(step, model, optimizer, x):
        if step == 20:
            with torch.no_grad():
                model[0].weight.mul_(1e20)
                model[2].weight.mul_(float("inf"))
        return x

    loop(model, optimizer, guard, steps=22, at_step=plant)
    incident = tamegrad.load_incident(guard.incident_folder)
    found = tamegrad.bisect(incident, mlp(), lambda m, b: m(b).sum())
    assert breaking(found)["again"]
    assert found.notes == ["every row breaks on its own, so no particular rows are to blame"]


def test_without_kept_parameters_those_of_the_model_are_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("tamegrad._incident_writer._BYTES_MAX", 5000)
    model = mlp()
    x, y = next(batches(1))
    x[3] = float("inf")
    incident = incident_of(tmp_path, model, (x, y))
    found = tamegrad.bisect(incident, model, cross_entropy)
    assert found.rows == [3]
    assert "note: the parameters are the current ones of the model" in str(found)
    with pytest.raises(ValueError, match="model: got .* as in the model of"):
        tamegrad.bisect(incident, mlp(width=31), cross_entropy)


def test_a_model_that_is_broken_already_is_refused_without_kept_parameters(tmp_path, monkeypatch):
    monkeypatch.setattr("tamegrad._incident_writer._BYTES_MAX", 5000)
    model = mlp()
    incident = incident_of(tmp_path, model, next(batches(1)))
    with torch.no_grad():
        model[2].bias[3] = float("nan")
    with pytest.raises(ValueError, match=r"model: got `2.bias` with elements .*latest checkpoint"):
        tamegrad.bisect(incident, model, cross_entropy)


def test_a_loss_is_scaled_as_it_was(tmp_path):
    model = mlp()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    guard = tamegrad.watch(model, None, scaler=scaler)
    scaler.scale(cross_entropy(model, next(batches(1))))
    incident = tamegrad.load_incident(guard.dump(tmp_path, batch=next(batches(1))))
    found = tamegrad.bisect(incident, model, cross_entropy)
    assert 0.0 < row(found, "again").gradient_norm < 10.0
    found = tamegrad.bisect(incident, model, lambda m, b: cross_entropy(m, b) * 2.0**40)
    assert (breaking(found)["again"], breaking(found)["f64"]) == (True, False)


def test_limits_of_time_and_memory_are_told(tmp_path):
    model = mlp()
    x, y = next(batches(1))
    x[3] = float("inf")
    incident = incident_of(tmp_path, model, (x, y))
    size = 2 * sum(p.numel() * 4 for p in model.parameters())
    found = tamegrad.bisect(incident, model, cross_entropy, memory=size)
    assert idle(found)["f64"] == "not-run: it needs 0 MiB, above the limit of 0 MiB"
    assert found.rows == [3]
    found = tamegrad.bisect(incident, model, cross_entropy, memory=size - 1)
    assert [r.name for r in found.table] == ["again"]
    assert idle(found)["again"].startswith("not-run: it needs")

    def slow(model, batch):
        time.sleep(0.1)
        return cross_entropy(model, batch)

    began = time.perf_counter()
    found = tamegrad.bisect(incident, model, slow, seconds=0.15)
    assert time.perf_counter() - began < 2.0
    assert idle(found)["f64"] == "not-run: out of time"
    assert "the search for rows ran out of time" in found.notes
    found = tamegrad.bisect(incident, model, slow, seconds=0.95)
    assert "the search for rows ran out of time" in found.notes


def test_batch_norm_that_takes_no_single_row_is_no_obstacle(tmp_path):
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
    x, y = next(batches(1))
    x[9] = float("inf")
    incident = incident_of(tmp_path, model, (x, y))
    found = tamegrad.bisect(incident, model, cross_entropy)
    assert 9 in found.rows
    assert len(found.rows) == 2
    assert any("Expected more than 1 value per channel" in note for note in found.notes)


@pytest.mark.parametrize(
    ("step_fn", "words"),
    [
        (lambda m, b: m(b[0]), r"got a tensor of shape .32, 4. back, want the loss"),
        (lambda m, b: {"loss": m(b[0]).sum()}, "got dict back, want the loss"),
        (lambda m, b: m(b[0]).sum().item(), "got float back, want the loss"),
        (lambda m, b: m(b[0]).sum().detach(), "got a tensor without a graph back"),
        (lambda m, b: [loss := m(b[0]).sum(), loss.backward()][0], "it has called backward"),
    ],
)
def test_a_step_fn_that_gives_no_loss_is_told(tmp_path, step_fn, words):
    model = mlp()
    incident = incident_of(tmp_path, model, next(batches(1)))
    with pytest.raises(TypeError, match=f"step_fn: .*{words}"):
        tamegrad.bisect(incident, model, step_fn)


def test_other_arguments_are_refused_before_anything_is_run(tmp_path):
    model, runs = mlp(), []
    incident = incident_of(tmp_path, model, next(batches(1)))

    def step_fn(model, batch):
        runs.append(1)
        return cross_entropy(model, batch)

    with pytest.raises(ValueError, match="model: got .*, want .* as in the model of"):
        tamegrad.bisect(incident, mlp(width=31), step_fn)
    with pytest.raises(
        TypeError, match="incident: got PosixPath, want what tamegrad.load_incident"
    ):
        tamegrad.bisect(tmp_path, model, step_fn)
    with pytest.raises(TypeError, match="step_fn: got NoneType, want a function"):
        tamegrad.bisect(incident, model, None)
    incident.batch = None
    with pytest.raises(ValueError, match=r"incident: got one without a batch.*guard.log.batch"):
        tamegrad.bisect(incident, model, step_fn)
    _, guard = watched(mlp())
    with pytest.raises(ValueError, match="guard.bisect: got no saved alarm, want one"):
        guard.bisect(step_fn)
    assert runs == []


def test_a_step_fn_with_a_model_of_its_own_is_told_and_does_no_harm(tmp_path):
    model = mlp()
    incident = incident_of(tmp_path, model, next(batches(1)))
    cross_entropy(model, next(batches(1))).backward()
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters()]
    with pytest.raises(ValueError, match="does not reach the model that step_fn was given"):
        tamegrad.bisect(incident, model, lambda m, b: cross_entropy(model, b))
    for parameter, (gradient, before) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert torch.equal(gradient, before)


def test_a_model_that_holds_its_last_graph_is_copied(tmp_path):
    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.losses = nn.Linear(16, 4), []

        def forward(self, x):
            self.losses.append(self.layer(x).sum())
            return self.layer(x)

    model = Holds()
    model(torch.ones(2, 16))
    incident = incident_of(tmp_path, model, next(batches(1)))
    found = tamegrad.bisect(incident, model, cross_entropy)
    assert breaking(found)["again"] is False
    assert len(model.losses) == 1


def test_the_core_says_what_the_experiments_point_to(tmp_path):
    model = mlp().half()
    x, _ = next(batches(1))
    incident = incident_of(tmp_path, model, (x * 1e4).half())
    found = tamegrad.bisect(incident, model, lambda m, b: m[0](b).square().mean())
    assert found.cause == "precision"
    assert "cause: precision" in str(found)


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ([("again", False), ("f32", True), ("same-bits", True)], "precision"),
        ([("again", False), ("f32", False), ("f64", False)], None),
        ([("again", False), ("no-compile", True), ("f32", True)], "kernel"),
        ([("again", False), ("same-bits", False)], "kernel"),
        ([("again", True), ("update", False), ("larger-eps", True)], "optimizer-division"),
        ([("again", True), ("f32", True)], None),
        ([("again", False), ("f32", None), ("another", True)], None),
    ],
)
def test_the_cause_that_follows_from_what_stayed_whole(rows, cause):
    assert _core.judge_experiments(rows) == cause


def test_the_result_is_text_html_and_json(tmp_path):
    model = mlp()
    x, y = next(batches(1))
    x[3] = float("nan")
    found = tamegrad.bisect(incident_of(tmp_path, model, (x, y)), model, cross_entropy)
    held = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert held["schema"] == "tamegrad/bisection/1"
    assert (held["rows"], held["batch_size"], held["step"]) == ([3], 32, 0)
    assert held["experiments"][0]["loss"] == "NaN"
    assert held["experiments"][0].keys() >= {"name", "state", "breaks", "finite_loss", "seconds"}
    assert found._repr_html_() == f"<pre>{found.text()}</pre>"
    assert repr(found).startswith("Bisection(step=0, breaks=['again', 'again-2', 'f64'], rows=[3]")
    lines = found.text().splitlines()
    assert lines[2].split() == [
        "experiment",
        "breaks",
        "loss",
        "gradient",
        "norm",
        "largest",
        "seconds",
    ]
    assert lines[3].split()[:4] == ["again", "loss", "nan", "nan"]


def test_a_guard_tells_the_rows_after_its_alarm(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x")

    def plant(step, model, optimizer, x):
        if step == 20:
            x[7] = float("inf")
        return x

    loop(model, optimizer, guard, steps=25, at_step=plant)
    found = guard.bisect(lambda model, x: model(x).square().mean())
    assert (found.rows, found.step) == ([7], 20)


# --- rows -------------------------------------------------------------------------------------------


def test_the_size_of_a_batch_is_that_of_most_of_its_tensors():
    x, y, mask = torch.ones(6, 3), torch.ones(6), torch.ones(3, 3)
    for batch, want in (
        ((x, y), 6),
        ({"x": x, "mask": mask, "y": y}, 6),
        (x, 6),
        (SimpleNamespace(x=x, n=torch.tensor(3)), 6),
        ((torch.ones(1, 3), 5), None),
        ("text", None),
        ([numpy.ones((4, 2)), 1], 4),
    ):
        assert _rows.batch_size(batch) == want


def test_rows_are_taken_of_tensors_arrays_and_lists():
    x = torch.arange(6).reshape(3, 2)
    batch = {
        "x": x,
        "ids": ["a", "b", "c"],
        "array": numpy.arange(3),
        "all": torch.ones(2),
        "pair": [x, x, x],
        "leaf": torch.ones(3).requires_grad_(),
    }
    got = _rows.taken(batch, 3, [0, 2])
    assert got["x"].tolist() == [[0, 1], [4, 5]]
    assert got["ids"] == ["a", "c"]
    assert got["array"].tolist() == [0, 2]
    assert got["all"].shape == (2,)
    assert [t.shape for t in got["pair"]] == [(2, 2)] * 3
    assert got["leaf"].is_leaf
    assert got["leaf"].requires_grad


@pytest.mark.parametrize(
    ("size", "bad", "want"),
    [
        (64, [{3}], [[3]]),
        (64, [{3, 40}], [[3, 40]]),
        (7, [{0, 3, 6}], [[0, 3, 6]]),
        (64, [{3}, {10, 11}], [[3], [10, 11]]),
        (2, [{1}], [[1]]),
        (100, [{n} for n in range(0, 60, 5)], [[n] for n in range(0, 40, 5)]),
        (8, [{n} for n in range(8)], []),
    ],
)
def test_smallest_sets_of_rows(size, bad, want):
    count = 0

    def breaks(rows):
        nonlocal count
        count += 1
        return any(s <= set(rows) for s in bad)

    got, is_complete = _rows.smallest_sets(size, breaks)
    assert sorted(map(sorted, got)) == want
    assert is_complete
    assert count < 200


def test_a_search_without_time_gives_what_it_has():
    left = 5

    def breaks(rows):
        nonlocal left
        left -= 1
        return None if left < 0 else 3 in rows

    (rows,), is_complete = _rows.smallest_sets(64, breaks)
    assert 3 in rows
    assert len(rows) < 64
    assert not is_complete
    assert _rows.smallest_sets(64, lambda rows: None) == ([], False)


def test_a_copy_of_the_model_is_all_that_is_worked_on(tmp_path):
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    incident = incident_of(tmp_path, model, next(batches(1)))

    def step_fn(given, batch):
        assert given is not model
        with torch.no_grad():
            given[0].weight.fill_(float("nan"))
        return cross_entropy(given, batch)

    found = tamegrad.bisect(incident, model, step_fn)
    assert breaking(found)["again"]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
