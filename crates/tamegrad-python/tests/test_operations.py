"""The operation that made the first NaN or Inf, and the line that called it."""

from __future__ import annotations

import functools
import math
import os
import warnings
import weakref

import pytest
import torch
from conftest import batches, loss_of, mlp, state_bits, watched
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from tamegrad import _backward
from tamegrad._finder import Finder, saved_tensors
from tamegrad._inspection import nonfinite_rows
from tamegrad._loss_graph import LossGraph
from tamegrad._loss_nodes import LossNode, is_broken_backward, is_empty_mean
from tamegrad._operations import ctc_labels_of, name_and_kind, operand_of

BAD = 6
"""The step that breaks."""


class Root(torch.autograd.Function):
    """A square root whose derivative at 0 nobody has thought of."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.abs().sqrt()

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient / (2 * x.abs().sqrt())  # root backward


class Layer(nn.Module):
    """Computes a function of its input between two linear layers, from one step on."""

    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 4)
        self.inner = Inner(function)

    def forward(self, x):
        return self.last(self.inner(self.first(x)))


class Inner(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.is_bad = function, False

    def forward(self, x):
        return self.function(x) if self.is_bad else x


def inspected(model, loss, *, log="before", bad=None, mode="observe", steps=BAD + 1, **options):
    """Trains on a loss of outputs, inputs, labels and whether the step is bad, until that step is over;
    gives what was found."""
    step_fn = None
    if log == "step_fn":
        step_fn = lambda model, batch: loss(model(batch[0]), *batch)  # noqa: E731
    optimizer, guard = watched(model, mode, torch.optim.Adam, 1e-3, step_fn=step_fn, **options)
    for step, (x, y) in enumerate(batches(steps)):
        if bad is not None:
            bad(step == BAD)
        batch = (x, y, step == BAD)
        optimizer.zero_grad()
        value = loss(model(x), *batch)
        if log not in ("after", "never"):
            guard.log(loss=value.item() if log == "number" else value, batch=batch)
        value.backward()
        if log == "after":
            guard.log(loss=value)
        optimizer.step()
        assert not torch.is_anomaly_enabled()
    guard.close()
    return guard._steps.after_alarm.inspection


def in_model(function, loss=None):
    """What is found where a layer of the model computes a function in the bad step."""
    torch.manual_seed(0)
    model = Layer(function)
    loss = loss or (lambda out, x, y, bad: functional.cross_entropy(out, y))
    return inspected(model, loss, bad=lambda now: setattr(model.inner, "is_bad", now))


def found_in(case, *parameters):
    """What the finder sees in one pass."""
    finder = Finder()
    with finder:
        out = case()
        finder.end_forward(out, [torch.ones_like(out)])
        if out.requires_grad:
            ones = torch.ones_like(out)
            torch.autograd.grad(out, parameters, ones, retain_graph=True, allow_unused=True)
    assert finder.error is None
    return finder


@pytest.mark.parametrize("keeps_output", [True, False])
def test_a_pass_that_differs_when_it_is_repeated_is_no_evidence(keeps_output, told):
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = nn.Linear(16, 4), [0]

        def forward(self, x):
            self.calls[0] += 1
            out = self.layer(x)
            return out.log() if self.calls[0] == BAD + 1 else out

    kept = []

    def loss(out, x, y, bad):
        kept[:] = [out] if keeps_output else []
        return functional.cross_entropy(out, y)

    assert inspected(Counts(), loss).operation is None
    assert any("finite where the first one was not" in said for said in told())


# --- the loss ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "of",
    [
        functional.mse_loss,
        functional.l1_loss,
        functional.smooth_l1_loss,
        functional.huber_loss,
        functional.binary_cross_entropy_with_logits,
    ],
)
@pytest.mark.parametrize("is_empty", [True, False])
def test_a_loss_that_is_the_mean_of_nothing(of, is_empty):
    def loss(out, x, y, bad):
        chosen = out[:0] if bad and is_empty else out
        value = of(chosen, torch.ones_like(chosen))
        return value * (math.inf if bad and not is_empty else 1.0)

    operation = inspected(mlp(), loss).operation
    is_mean_of_nothing = operation is not None and operation.operands[0].len == 0
    assert is_mean_of_nothing == is_empty, operation


def test_a_root_of_numbers_above_0_is_not_what_breaks_the_gradient_of_a_parameter():
    model = mlp()
    is_bad = []
    model[0].weight.register_hook(lambda gradient: gradient * (math.nan if is_bad else 1.0))

    def loss(out, x, y, bad):
        return (out.square().sum(1) + 1.0).sqrt().mean() + functional.cross_entropy(out, y)

    found = inspected(model, loss, bad=lambda now: is_bad.append(now) if now else None)
    assert found.operation is None


def test_the_mean_of_nothing_is_known_when_the_backward_pass_has_let_go_of_it():
    x = torch.ones(4, requires_grad=True)
    for given, reduction, is_empty in (
        (x[:0], "mean", True),
        (x, "mean", False),
        (x[:0], "sum", False),
    ):
        loss = functional.smooth_l1_loss(given, torch.zeros_like(given), reduction=reduction)
        node = LossNode(loss.grad_fn, "", *name_and_kind(loss.grad_fn.name()), 0, None)
        loss.backward()
        assert is_empty_mean(node) == is_empty


@pytest.mark.parametrize(
    "given, by, is_broken", [(0.0, 1e-25, False), (1.0, 1e-25, True), (1.0, 0.0, True)]
)
def test_a_division_breaks_the_gradient_where_torch_says_so(given, by, is_broken):
    x, y = torch.tensor([given], requires_grad=True), torch.tensor([by], requires_grad=True)
    quotient = (x / y).sum()
    node = quotient.grad_fn.next_functions[0][0]
    known = LossNode(node, "", *name_and_kind(node.name()), 0, None, saved_tensors(node))
    assert is_broken_backward(known) == is_broken
    gradients = torch.autograd.grad(quotient, (x, y))
    assert all(gradient.isfinite().all() for gradient in gradients) != is_broken


@pytest.mark.parametrize("is_zeroed", [False, True])
@pytest.mark.parametrize("log", ["before", "number", "never", "step_fn"])
def test_targets_that_are_longer_than_their_inputs(log, is_zeroed):
    lengths = torch.full((4,), 8)

    def loss(out, x, y, bad):
        scores = out.view(8, 4, 4).log_softmax(-1)
        targets = torch.tensor([[1, 2, 3]] * 4)
        given = torch.where(torch.arange(4) < 2, 2, lengths) if bad else lengths
        value = functional.ctc_loss(
            scores, targets, given, torch.full((4,), 3), zero_infinity=is_zeroed
        )
        # What its infinities are made 0 in is not what has broken.
        return value + (math.nan if bad and is_zeroed else 0.0) * out.mean()

    found = inspected(mlp(), loss, log=log)
    assert (found.labels and found.labels.too_long) == (None if is_zeroed else 2)


def test_the_lengths_of_targets_stay_when_the_backward_pass_is_over():
    scores = torch.zeros(8, 3, 5, requires_grad=True).log_softmax(-1)
    targets, lengths = torch.tensor([[1, 1], [1, 2], [1, 2]]), torch.tensor([8, 1, 8])
    graph = LossGraph()
    graph.see_call(0, scores.grad_fn._sequence_nr() + 1)
    loss = functional.ctc_loss(scores, targets, lengths, torch.tensor([2, 2, 2]))
    graph.see(loss, None)
    loss.backward()
    graph.culprit(is_finite=False)
    assert (graph.labels.too_long, graph.labels.len, graph.labels.classes) == (1, 3, 5)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_a_root_in_a_gradient_penalty(eps):
    """The loss holds the gradient of the model: what breaks is the gradient of that."""

    def loss(out, x, y, bad):
        given = (x * (0.0 if bad else 1.0)).requires_grad_()
        slope = torch.autograd.grad(model(given).sum(), given, create_graph=True)[0]
        slope = slope * (0.0 if bad else 1.0)
        norm = (slope.square().sum(1) + eps).sqrt()
        return (norm - 1).square().mean() + functional.cross_entropy(out, y)

    model = mlp()
    operation = inspected(model, loss).operation
    assert (operation is not None and (operation.kind, operation.backward)) == (
        ("sqrt", True) if eps == 0.0 else False
    )
    assert operation is None or "norm = (slope.square()" in operation.line.code


def std_of_one(out, x, y, bad):
    a = x[: 1 if bad else 32, 0]
    a = (a - a.mean()) / (a.std() + 1e-8)
    return (a * out[: len(a), 0]).mean() + out.square().mean()


def sqrt_of_zero(out, x, y, bad):
    apart = (out[:16] - out[16:]).pow(2).sum(1) * (0.0 if bad else 1.0)
    return functional.relu(1 - apart.sqrt()).mean() + 0.01 * out.pow(2).mean()


def log_of_zero(out, x, y, bad):
    p = out.softmax(1)[:, 0] * (0.0 if bad else 1.0)
    return -p.log().mean()


def hidden_nan(out, x, y, bad):
    targets = x[:, :4].clone()
    targets[0, 0] = math.nan if bad else 0.0
    return (out - targets).pow(2).nanmean()


def empty_mean(out, x, y, bad):
    kept = torch.full((32,), not bad)
    return (out[kept] - x[kept, :4]).pow(2).mean()


def branch_not_taken(out, x, y, bad):
    v = out[:, 0]
    root = (-v.abs() - 1).sqrt() if bad else v
    return torch.where(v > (-1e9 if bad else 1e9), out[:, 1], root).mean() + out.square().mean()


def all_ignored(out, x, y, bad):
    return functional.cross_entropy(out, torch.full_like(y, -100) if bad else y)


def sum_in_half(out, x, y, bad):
    p = out.half().softmax(1) * (2e4 if bad else 1.0)
    return (1 / p.sum()).float() * p.sum().float() + out.square().mean()


def product_in_half(out, x, y, bad):
    p = out.half().softmax(1) * (2e2 if bad else 1.0)
    gram = torch.einsum("ni,nj->ij", p, p) / 32
    return (gram - gram.mean()).square().mean().float() + out.square().mean()


LOSSES = {
    std_of_one: {"graph": "multiply", "step_fn": "std"},
    sqrt_of_zero: {"graph": "sqrt", "step_fn": "sqrt"},
    log_of_zero: {"graph": "log", "step_fn": "log"},
    hidden_nan: {"graph": "power", "step_fn": "power"},
    empty_mean: {"graph": "mean", "step_fn": "mean"},
    branch_not_taken: {"graph": "sqrt", "step_fn": "sqrt"},
    all_ignored: {"graph": "loss", "step_fn": "loss"},
    sum_in_half: {"graph": "sum", "step_fn": "sum"},
    product_in_half: {"graph": "matmul", "step_fn": "matmul"},
}
"""Losses, with the kind of the operation that is found in the graph alone, and when the step is repeated."""
WORDS = {"std": "a.std()", "sqrt": "sqrt()", "log": "p.log()", "mean": "mean()", "power": "pow(2)"}
WORDS |= {"sum": "p.sum()", "matmul": "einsum"}


@pytest.mark.parametrize("log", ["before", "number", "after", "never", "step_fn", "protect"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)
def test_the_operation_of_a_loss_is_found(loss, log):
    how = "before" if log == "protect" else log
    mode = "protect" if log == "protect" else "observe"
    found = inspected(mlp(), loss, log=how, mode=mode)
    kind = LOSSES[loss]["step_fn" if log == "step_fn" else "graph"]
    assert (found.operation and found.operation.kind) == kind
    assert found.division is None
    # The branch of the sqrt is not there in the first steps, whose lines are kept.
    if kind in WORDS and not (loss is branch_not_taken and how != "step_fn"):
        assert WORDS[kind] in found.operation.line.code
        assert found.operation.line.function == loss.__name__
        assert os.path.abspath(found.operation.line.file) == __file__
    assert found.operation.module is None
    if how == "step_fn":
        assert found.operation.backward == (loss in (sqrt_of_zero, hidden_nan, branch_not_taken))


def test_the_values_of_a_loss_are_counted():
    operand = inspected(mlp(), log_of_zero).operation.operands[0]
    assert (operand.zeros, operand.len, operand.smallest) == (32, 32, None)
    labels = inspected(mlp(), all_ignored).labels
    assert (labels.ignored, labels.len, labels.classes, labels.reduction) == (32, 32, 4, "mean")
    # The loss is finite, so the values are those that were kept until the gradients came.
    assert inspected(mlp(), sqrt_of_zero).operation.operands[0].zeros == 16


def test_a_loss_logged_after_the_step_is_known_by_the_step_before():
    model = mlp()
    optimizer, guard = watched(model)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        optimizer.zero_grad()
        loss = sqrt_of_zero(model(x), x, y, step == BAD)
        loss.backward()
        optimizer.step()
        guard.log(loss=loss)
    operation = guard._steps.after_alarm.inspection.operation
    assert operation.kind == "sqrt" and "sqrt()" in operation.line.code


@pytest.mark.parametrize("log", ["before", "never"])
def test_the_loss_of_a_micro_batch_is_found(log):
    model = mlp()
    optimizer, guard = watched(model)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        optimizer.zero_grad()
        for part in range(3):
            loss = log_of_zero(model(x), x, y, (step, part) == (BAD, 1)) / 3
            if log == "before":
                guard.log(loss=loss)
            loss.backward()
        optimizer.step()
    assert guard._steps.after_alarm.inspection.operation.kind == "log"
    assert guard.diagnosis().onset == BAD


def test_a_term_of_the_loss_that_is_not_logged_is_found():
    model = mlp()
    optimizer, guard = watched(model)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        guard.log(loss=loss)
        (loss + 0.1 * log_of_zero(model(x), x, y, step == BAD)).backward()
        optimizer.step()
    assert guard._steps.after_alarm.inspection.operation.kind == "log"


def test_the_loss_of_another_model_is_not_looked_at():
    (model, other), (x, y) = (mlp(), mlp()), next(iter(batches(1)))
    (optimizer, guard), (_, second) = watched(model), watched(other)
    other(x)
    loss = log_of_zero(model(x), x, y, True)
    loss.backward()
    assert guard._steps.passes.loss_graph._root is loss.grad_fn
    assert second._steps.passes.loss_graph._root is None
    optimizer.step()
    assert guard._steps.after_alarm.inspection.operation.kind == "log"


@pytest.fixture
def bare(monkeypatch):
    """torch's own function, with no guard of other tests behind it."""
    monkeypatch.setattr(_backward, "_seers", weakref.WeakSet())
    monkeypatch.setattr(torch.autograd, "backward", _backward._original)
    return _backward._original


def test_a_loss_that_the_loop_leaves_out_is_none_of_the_next_step():
    model = mlp()
    optimizer, guard = watched(model)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        optimizer.zero_grad()
        loss = empty_mean(model(x), x, y, step == BAD - 1)
        loss.backward()
        if loss.isfinite():
            optimizer.step()
    assert [finding.step for finding in guard.findings()] == [BAD - 1]
    assert guard.step_number == BAD + 1


@pytest.mark.parametrize("log", ["before", "number", "after"])
def test_outputs_that_are_far_too_large_from_the_start_are_told(log):
    def run(scale):
        model = mlp(depth=2)
        with torch.no_grad():
            model[-1].weight.mul_(scale)
        optimizer, guard = watched(model, lr=1e-6)
        for x, y in batches(25):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            if log == "before":
                guard.log(loss=loss)
            loss.backward()
            if log == "number":
                guard.log(loss=loss.item())
            optimizer.step()
            if log == "after":
                guard.log(loss=loss.item())
        return guard.findings()

    assert run(1.0) == []
    found = run(100.0)[0]
    assert (found.sign, found.step) == ("metric-stalls", 20 if log == "after" else 19)
    assert (found.evidence[0].reference, found.evidence[0].against) == (
        "constant",
        pytest.approx(math.log(4)),
    )


def test_torch_is_as_it_was_when_the_last_guard_has_closed(bare):
    (_, first), (_, second) = watched(mlp()), watched(mlp())
    assert torch.autograd.backward is not bare
    first.close()
    assert torch.autograd.backward is not bare
    second.close()
    assert torch.autograd.backward is bare


def test_what_others_put_over_the_backward_pass_stays(bare, monkeypatch):
    _, first = watched(mlp())
    ours, passes = torch.autograd.backward, []

    @functools.wraps(ours)
    def counted(*args, **kwargs):
        passes.append(1)
        return ours(*args, **kwargs)

    monkeypatch.setattr(torch.autograd, "backward", counted)
    first.close()
    found = inspected(mlp(), log_of_zero, log="never")
    assert found.operation.kind == "log" and len(passes) == BAD + 1
    assert torch.autograd.backward is counted


# --- the model ---------------------------------------------------------------------------------

NOTHING = torch.zeros(8, dtype=torch.bool)
FULL = torch.ones(8, dtype=torch.bool)

LAYERS = {
    "masked row": (
        lambda x: x.masked_fill(FULL, -math.inf).softmax(1),
        {"kind": "softmax", "backward": False, "masked_rows": 32},
    ),
    "where and sqrt": (
        lambda x: torch.where(x > 1e9, x.abs().sqrt(), torch.where(x > 1e9, (x * 0).sqrt(), x)),
        {"kind": "sqrt", "backward": True, "zeros": 256},
    ),
    "sqrt of 0": (lambda x: (x * 0).sqrt(), {"kind": "sqrt", "backward": True, "zeros": 256}),
    "exp": (lambda x: (x + 200).exp(), {"kind": "exp", "backward": False, "negatives": 0}),
    "custom": (lambda x: Root.apply(x * 0), {"kind": "custom", "backward": True, "zeros": 256}),
    "log times 0": (lambda x: (x * 0).log() * 0, {"kind": "log", "backward": False, "zeros": 256}),
    "division in place": (
        lambda x: x.mul(0).div_(0),
        {"kind": "division", "backward": False, "zeros": 256},
    ),
    "half": (
        lambda x: ((x * 0 + 300).half() @ torch.full((8, 8), 300.0).half()).float(),
        {"kind": "matmul", "backward": False, "dtype": "float16"},
    ),
    "checkpoint": (
        lambda x: checkpoint(lambda z: (z * 0).sqrt(), x, use_reentrant=False),
        {"kind": "sqrt", "backward": True, "zeros": 256},
    ),
    "compiled": (
        torch.compile(lambda x: (x * 0).log(), backend="eager"),
        {"kind": "log", "backward": False, "zeros": 256},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_operation_of_a_layer_is_found(name):
    function, wanted = LAYERS[name]
    operation = in_model(function).operation
    assert operation.kind == wanted.pop("kind")
    assert operation.backward == wanted.pop("backward")
    assert operation.module == "inner"
    assert os.path.abspath(operation.line.file) == __file__
    seen = operation.operands
    assert all(any(getattr(o, key) == value for o in seen) for key, value in wanted.items())
    if name == "custom":
        assert "# root backward" in operation.line.code and operation.name == "Root"
    if name == "half":
        assert operation.wider_is_finite and operation.dtype_max == 65504.0


def test_a_loss_module_has_the_line_that_calls_it():
    of = nn.NLLLoss()

    def loss(out, x, y, bad):
        return of(out.log_softmax(1), y * 0 - 100 if bad else y)

    found = inspected(mlp(), loss, log="step_fn")
    assert found.operation.kind == "loss" and "return of(" in found.operation.line.code


PASSES = {
    "the Inf of a mask is innocent": (lambda w: w.masked_fill(w == w, -math.inf).amax(), None),
    "full": (lambda w: torch.full((2,), math.nan) + w.sum(), None),
    "NaN that was given": (lambda w: (w * torch.tensor(math.nan)).sum(), None),
    "log of a masked Inf": (lambda w: torch.where(w > 9, w, -math.inf).exp().sum(), None),
    "sum of halves": (lambda w: (w.half() * 0 + 60000).sum(), "sum"),
    "cast": (lambda w: (w * 0 + 70000).half().sum(), "cast"),
    "multiply": (lambda w: (w * 0 + 1e30) * 1e30, "multiply"),
    "norm": (lambda w: (w * 0 + 1e30).norm(), "norm"),
    "rsqrt": (lambda w: (w * 0).rsqrt(), "sqrt"),
    "reciprocal": (lambda w: 1 / (w * 0), "division"),
    "acos": (lambda w: torch.acos(w * 0 + 1), "inverse-trigonometric"),
    "power": (lambda w: (w * 0).pow(0.5), "power"),
    "attention": (lambda w: functional.scaled_dot_product_attention(*[w[None] * 1e30] * 3), None),
    "two results": (lambda w: torch.std_mean(w[:1, 0])[0], "std"),
    "overflow beside a mask": (
        lambda w: torch.where(w > 0, w, -math.inf).mul(1e38).mul(1e38),
        "multiply",
    ),
}


@pytest.mark.parametrize("name", PASSES)
def test_the_finder_names_the_kind(name):
    case, kind = PASSES[name]
    weight = torch.linspace(-1, 1, 9).reshape(3, 3).requires_grad_()
    operation = found_in(lambda: case(weight), weight).operation
    if name == "attention":
        assert operation is None or operation.kind == "attention"
        return
    assert (operation and operation.kind) == kind


def test_a_row_that_attention_may_not_look_at_is_no_crash():
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[1] = False
    q = torch.randn(1, 3, 4, requires_grad=True)
    finder = found_in(lambda: functional.scaled_dot_product_attention(q, q, q, attn_mask=mask), q)
    assert finder.operation is None or finder.operation.kind in ("attention", "softmax")


def test_gradients_that_overflow_when_they_are_added():
    w = torch.full((4,), 1e-3, dtype=torch.float16, requires_grad=True)

    def case():
        x = w * 1
        return (x * 200 + x * 200).sum() * 200

    operation = found_in(case, w).operation
    assert (operation.kind, operation.backward, operation.wider_is_finite) == ("add", True, True)


def test_strange_tensors_are_no_crash():
    weight = torch.ones(3, 3, requires_grad=True)

    def case():
        torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]) * 2
        sparse = torch.eye(3).to_sparse()
        (torch.arange(3) // 2).sum()
        torch.view_as_complex(torch.ones(3, 2)) / 0
        torch.empty(0).sum()
        return (sparse @ weight).sum() / 0

    assert found_in(case, weight).operation.kind == "division"


def test_the_finder_goes_blind_and_not_the_pass(monkeypatch):
    def broken(*given):
        raise ValueError("broken")

    monkeypatch.setattr(Finder, "_see", broken)
    finder = Finder()
    with finder:
        assert float(torch.ones(2).sum()) == 2.0
        finder.end_forward(torch.tensor(math.nan))
    assert finder.operation is None and isinstance(finder.error, ValueError)


# --- nothing else changes ----------------------------------------------------------------------


@pytest.mark.parametrize("has_step_fn", [False, True])
def test_a_run_with_an_alarm_is_the_bare_run_to_the_bit(has_step_fn):
    def run(watches):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.Dropout(), nn.Linear(32, 4))
        options = {"step_fn": lambda model, batch: step_loss(model, *batch)} if has_step_fn else {}
        optimizer, guard = watched(
            model, "observe" if watches else None, torch.optim.Adam, 1e-3, **options
        )
        losses = []
        for step, (x, y) in enumerate(batches(BAD + 4)):
            batch = [x, y, step == BAD]
            optimizer.zero_grad()
            loss = step_loss(model, *batch)
            if guard:
                guard.log(loss=loss, batch=batch)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if guard:
            assert guard._steps.after_alarm.inspection.operation.kind == "sqrt"
        return state_bits(model, optimizer), str(losses), torch.get_rng_state().tolist()

    assert run(False) == run(True)


def step_loss(model, x, y, bad):
    out = functional.dropout(model(x), 0.1)
    loss = functional.cross_entropy(out, y)
    return loss + (out * 0).sqrt().mean() if bad else loss


@pytest.mark.parametrize("before", [(False, True), (True, True), (True, False)])
def test_the_anomaly_mode_is_as_it_was(before):
    model = mlp()
    optimizer, guard = watched(model)
    x, y = next(batches(1))
    try:
        torch.set_anomaly_enabled(*before)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss = loss_of(model, x, y)
            assert torch.is_anomaly_enabled()
            loss.backward()
            optimizer.step()
        after = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
        assert after == before
        loss_of(model, x, y)
        assert (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()) == before
    finally:
        torch.set_anomaly_enabled(False, True)


def test_an_anomaly_mode_of_the_loop_within_ours_is_left():
    model = mlp()
    optimizer, _ = watched(model)
    x, y = next(batches(1))
    loss = loss_of(model, x, y)
    with torch.autograd.set_detect_anomaly(True):
        loss.backward()
        assert torch.is_anomaly_check_nan_enabled()
    optimizer.step()
    assert (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()) == (False, True)


@pytest.mark.parametrize("end", ["evaluation", "close"])
def test_the_anomaly_mode_does_not_outlast_an_error_in_the_loop(end):
    model = mlp()
    _, guard = watched(model)
    x, y = next(batches(1))
    with pytest.raises(IndexError):
        loss_of(model, x, y + 100)
    if end == "close":
        guard.close()
    else:
        with torch.no_grad():
            model(x)
    assert not torch.is_anomaly_enabled()


def test_a_step_fn_that_raises_is_told(told):
    def step_fn(model, batch):
        raise KeyError("labels")

    found = None
    model = mlp()
    optimizer, guard = watched(model, step_fn=step_fn)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        optimizer.zero_grad()
        loss = std_of_one(model(x), x, y, step == BAD)
        guard.log(loss=loss, batch=(x, y))
        loss.backward()
        optimizer.step()
    found = guard._steps.after_alarm.inspection
    assert any("could not be repeated" in said and "labels" in said for said in told())
    assert found.operation.kind == "multiply" and guard.failure is None


def test_a_batch_that_a_step_takes_apart_is_put_back():
    model = mlp()

    def step_fn(model, batch):
        return log_of_zero(model(batch.pop("x")), None, batch.pop("y"), True)

    optimizer, guard = watched(model, step_fn=step_fn)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        batch = {"x": x, "y": y}
        optimizer.zero_grad()
        loss = log_of_zero(model(x), x, y, step == BAD)
        guard.log(loss=loss, batch=batch)
        loss.backward()
        optimizer.step()
        assert list(batch) == ["x", "y"]
    assert guard._steps.after_alarm.inspection.operation.kind == "log"


# --- facts -------------------------------------------------------------------------------------


def test_rows_that_are_not_finite_are_numbered():
    x = torch.zeros(40, 3)
    x[2, 1], x[7:32, 0] = math.nan, math.inf
    rows, count = nonfinite_rows(x)
    assert (rows[:3], len(rows), count) == ([2, 7, 8], 20, 26)
    assert nonfinite_rows(torch.arange(3)) == ([], 0)


def test_the_rows_of_inputs_and_batch_are_found():
    model = mlp()
    optimizer, guard = watched(model)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        if step == BAD:
            x[5] = math.nan
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        guard.log(loss=loss, batch={"x": x})
        loss.backward()
        optimizer.step()
    found = guard._steps.after_alarm.inspection
    assert found.rows == {"input": [5], "batch.x": [5]}
    assert found.operation is None


def test_an_eps_that_is_nothing_in_the_type_of_the_state():
    torch.manual_seed(0)
    model = nn.Linear(16, 4).half()
    optimizer, guard = watched(model, "observe", torch.optim.Adam, 1e-3)
    for x, y in batches(3):
        optimizer.zero_grad()
        loss = loss_of(model, (x * (torch.arange(16) > 3)).half(), y)
        loss.backward()
        guard.log(loss=loss)
        optimizer.step()
    division = guard._steps.after_alarm.inspection.division
    assert (division.optimizer, division.eps_in_type, division.tensor) == ("Adam", 0.0, 0)
    assert division.zeros >= 16 and division.len == 64


def test_the_norm_of_one_of_several_passes():
    model = mlp(activation=nn.ReLU)
    optimizer, guard = watched(model)
    for step, (x, y) in enumerate(batches(60)):
        optimizer.zero_grad()
        for _ in range(4):
            loss = loss_of(model, x * (1e4 if step == 50 else 1), y)
            guard.log(loss=loss)
            loss.backward()
        optimizer.step()
    found = guard._steps.after_alarm.inspection.accumulation
    assert found.passes == 4 and found.norm == pytest.approx(4 * found.norm_of_one, rel=1e-3)


def test_targets_that_a_ctc_loss_cannot_place():
    labels = ctc_labels_of(5, torch.tensor([[1, 2], [1, 1], [3, 4]]), [10, 2, 1], [2, 2, 2])
    assert (labels.too_long, labels.len, labels.classes) == (2, 3, 5)


def test_names_of_operations_and_of_nodes_are_the_same():
    assert name_and_kind("_log_softmax") == name_and_kind("LogSoftmaxBackward0")
    assert name_and_kind("_log_softmax") == ("log_softmax", "log-softmax")
    assert name_and_kind("LinalgVectorNormBackward0") == ("linalg_vector_norm", "norm")
    assert (
        name_and_kind("NllLoss2DBackward0")[1] == name_and_kind("nll_loss2d_forward")[1] == "loss"
    )
    assert name_and_kind("SomethingBackward0") == ("something", "other")


def test_an_operand_is_counted():
    operand = operand_of(torch.tensor([[0.0, -2.0, math.nan], [-math.inf] * 3]))
    assert (operand.zeros, operand.negatives, operand.nan, operand.neg_inf) == (1, 4, 1, 3)
    assert (operand.smallest, operand.largest, operand.masked_rows) == (2.0, 2.0, 1)


def test_parameters_that_a_broken_gradient_has_broken_are_no_division():
    assert inspected(mlp(), hidden_nan, log="after", steps=BAD + 3).division is None
