"""What each change does to a training: cases as data, a value compared."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from fix_objectives import network
from torch import nn

import tamegrad
from tamegrad import _core
from tamegrad._fix import changes
from tamegrad._fix.batches import map_target, rows_of
from tamegrad._fix.change import CannotApply, Case, Change
from tamegrad._fix.changes.filter_rows import Filter
from tamegrad._fix.changes.scale_input import InputScale
from tamegrad._fix.changes.scale_target import TargetScale
from tamegrad._fix.outcome import Task
from tamegrad._fix.trial import Trial


def change(kind: str, **parameters) -> Change:
    return Change(kind, parameters, kind, kind)


def prepared(wanted: Change, *, model=None, lr=0.1, given=torch.optim.SGD, **options):
    """A trial with one change, its model and its optimizer."""
    torch.manual_seed(0)
    model = network(2) if model is None else model
    trial = Trial(Task("test", (wanted,)))
    optimizer = given(model.parameters(), lr=lr, **options)
    trial.prepare(model, optimizer)
    return trial, model, optimizer


def stepped(wanted: Change, gradient: float = 1.0, **options) -> torch.Tensor:
    """By how much a step with all gradients at a value changes the first weight matrix."""
    _, model, optimizer = prepared(wanted, **options)
    before = model[0].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()
    return model[0].weight.detach() - before


ELEMENTS = sum(p.numel() for p in network(2).parameters())


@pytest.mark.parametrize(
    ("wanted", "size"),
    [
        (change("learning-rate", factor=0.1), 0.01),
        (change("limit-rate", limit=0.02), 0.02),
        (change("limit-rate", limit=0.5), 0.1),
        (change("warm-up", steps=4), 0.025),
        (change("clip-value", limit=0.5), 0.05),
        (change("clip-global-norm", max_norm=1.0), 0.1 / math.sqrt(ELEMENTS)),
        (change("clip-tensor-norm", max_norm=1.0), 0.1 / math.sqrt(8 * 24)),
    ],
)
def test_a_step_with_gradients_of_one(wanted, size):
    assert stepped(wanted).numpy() == pytest.approx(-size, rel=1e-4)


def test_the_rate_is_as_before_after_the_step():
    wanted = change("learning-rate", factor=0.1)
    _, model, optimizer = prepared(wanted)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("weight-decay", lambda w: -0.1 * 0.5 * w),
        ("l2-penalty", lambda w: -0.1 * 0.5 * 2.0 * w),
        ("l1-penalty", lambda w: -0.1 * 0.5 * w.sign()),
    ],
)
def test_a_step_without_a_gradient_but_for_the_penalty(kind, of):
    torch.manual_seed(0)
    weight = network(2)[0].weight.detach()
    moved = stepped(change(kind, rate=0.5, strength=0.5), gradient=0.0)
    assert torch.allclose(moved, of(weight), atol=1e-6)


@pytest.mark.parametrize(
    ("knob", "wanted", "given", "answer"),
    [
        ("rate", change("learning-rate", factor=0.1), 0.5, 0.05),
        ("depth", change("depth", layers=3), 8, 3),
        ("width", change("width", width=16), 64, 16),
        ("batch_size", change("batch-size", samples=16), 64, 16),
        ("momentum", change("momentum", momentum=0.9), 0.999, 0.9),
        ("weight_decay", change("weight-decay", rate=0.1), 0.0, 0.1),
        ("eps", change("optimizer-eps", eps=1e-4), 1e-8, 1e-4),
        ("warmup_steps", change("warm-up", steps=50), 0, 50),
        ("clip_norm", change("clip-global-norm", max_norm=2.0), 5.0, 0.5),
        ("norm", change("layer-norm", place="before"), "none", "layer"),
        ("dtype", change("wider-type", line=None), torch.float16, torch.float32),
        ("activation", change("activation", name="relu", layer=None), "exp", "relu"),
        ("activation", change("activation", name="relu", layer=None), nn.Tanh, nn.ReLU),
        ("activation", change("activation", name="relu", layer=None), torch.exp, torch.relu),
        ("rate", change("clip-value", limit=1.0), 0.5, 0.5),
    ],
)
def test_a_knob_gives_the_value_of_the_change(knob, wanted, given, answer):
    assert getattr(Trial(Task("test", (wanted,))), knob)(given) == answer


def test_a_knob_and_the_optimizer_are_not_both_turned():
    wanted = change("learning-rate", factor=0.1)
    trial = Trial(Task("test", (wanted,)))
    model = network(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.rate(1.0))
    trial.prepare(model, optimizer)
    before = model[0].bias.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert (model[0].bias - before).detach().numpy() == pytest.approx(-0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (change("depth", layers=2), "trial.depth"),
        (change("filter-rows"), "trial.batches"),
        (change("scale-target"), "trial.batches"),
        (change("activation", name="relu", layer=None), "trial.activation"),
        (change("wider-type", line=None), "trial.dtype"),
        (change("momentum", momentum=0.9), "momentum"),
        (change("reinitialise", scheme="he", layer="nowhere"), "no layer nowhere"),
        (change("optimizer-eps", eps=1e-4), "no eps"),
    ],
)
def test_a_change_without_a_place_says_what_would_help(wanted, reason):
    with pytest.raises(CannotApply, match=reason):
        prepared(wanted)


def test_rows_that_are_not_finite_or_of_another_size_are_left_out():
    x, y = torch.ones(8, 3), torch.arange(8)
    x[2, 1], x[5, 0] = math.nan, 1e4
    kept_x, kept_y = Filter()((x, y))
    assert kept_y.tolist() == [0, 1, 3, 4, 6, 7] and bool((kept_x == 1).all())
    assert Filter()((torch.full((2, 3), math.inf), torch.zeros(2))) is None


def test_scaled_targets_are_put_back_in_evaluation():
    batch = (torch.zeros(4, 2), torch.tensor([[10.0], [20.0], [30.0], [40.0]]))
    scale = TargetScale()
    scale.learn([batch])
    scaled = scale(batch)[1]
    assert float(scaled.mean()) == pytest.approx(0.0, abs=1e-6)
    module = nn.Identity()
    assert scale.put_back(module, (), scaled) is None
    with torch.no_grad():
        assert torch.allclose(scale.put_back(module, (), scaled), batch[1])


def test_inputs_are_standardised_by_column_in_training_and_evaluation():
    model = nn.Sequential(nn.Identity())
    model.register_forward_pre_hook(InputScale())
    x = torch.randn(500, 3) * torch.tensor([1.0, 1e3, 0.0]) + 5.0
    out = model(x)
    assert out.std(0)[:2].numpy() == pytest.approx(1.0, rel=0.01)
    model.eval()
    assert torch.equal(model(x[:1]), out[:1])


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("kind", ["batch", "layer", "rms"])
def test_norms_are_added_whatever_the_forward(kind, place):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

    torch.manual_seed(0)
    model = Own()
    assert tamegrad.add_norm(model, kind, place) == 2
    seen = {}
    hook = "register_forward_hook" if place == "before" else "register_forward_pre_hook"
    getattr(model.b, hook)(lambda m, i, o=None: seen.update(h=i[0] if o is None else o))
    model(100.0 * torch.randn(64, 4))
    assert float(seen["h"].square().mean().detach()) == pytest.approx(1.0, rel=0.05)


def test_an_added_norm_is_trained_and_a_second_optimizer_group_holds_it():
    wanted = change("layer-norm", place="before")
    _, model, optimizer = prepared(wanted, given=torch.optim.AdamW, weight_decay=0.1)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} == held
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_residual_connections_add_the_input():
    torch.manual_seed(0)
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.Linear(4, 2))
    x = torch.randn(3, 4)
    plain = layer(x)
    assert tamegrad.add_residual(model) == 1
    assert torch.equal(layer(x), plain + x)


@pytest.mark.parametrize("scheme", ["xavier", "orthogonal", "he", "torch"])
def test_recurrent_weights_are_drawn_anew(scheme):
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(4, 16))
    with torch.no_grad():
        model[0].weight_hh_l0.mul_(50.0)
    tamegrad.reinitialize_(model, scheme=scheme)
    singular = torch.linalg.svdvals(model[0].weight_hh_l0[:16].detach())
    assert float(singular.max()) <= 1.6 and float(singular.max()) > 0.1


CASE = Case((), (), ({"lr": 1e-3, "momentum": 0.9},), None, {})


@pytest.mark.parametrize(
    ("case", "labels"),
    [
        (CASE, []),
        (Case((), (), ({"lr": 1.0, "momentum": 0.99},), None, {}), ["momentum"]),
        (Case((), (), ({"lr": 1.0, "betas": [0.98, 0.999]},), None, {}), ["momentum"]),
        (Case((), (), ({"lr": 1.0, "weight_decay": -0.1},), None, {}), ["no-weight-decay"]),
        (Case((), (), ({"lr": 1.0}, {"lr": 1e-3}), None, {}), ["limit-rate"]),
        (Case((), (), ({"lr": 1.0},), (1e-3, 1.0), {}), ["limit-rate"]),
        (Case((), (), ({"lr": 1.0},), (1.0, 1.0), {"width": 64}), ["half-width"]),
        (
            Case((), (change("learning-rate", factor=0.1, **{"from": 1.0}),), (), None, {}),
            ["learning-rate", "lower-learning-rate-0.01"],
        ),
    ],
)
def test_what_the_run_as_given_makes_proposable(case, labels):
    assert [proposed.label for proposed in changes.propose(case)] == labels


def test_batches_keep_their_form():
    batch = {"x": torch.zeros(3, 2), "labels": torch.ones(3)}
    assert map_target(lambda y: y + 1, batch)["labels"].tolist() == [2.0] * 3
    assert (
        map_target(lambda y: y + 1, (torch.zeros(3), torch.zeros(3).long()))[1].tolist() == [0] * 3
    )
    assert (rows_of(batch), rows_of("no tensor")) == (3, None)


def test_a_shorter_trial_ends_the_loop_and_then_the_objective():
    task = functools.partial(Task, "test", total=40, shorten="batches")
    for part, steps in ((1.0, 40), (0.25, 10)):
        trial = Trial(task(part=part))
        model = network(1)
        trial.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
        drawn = sum(1 for _ in range(trial.epochs(4)) for _ in trial.batches([0] * 10))
        assert drawn == steps
        if part < 1.0:
            with pytest.raises(tamegrad.TrialEnd):
                trial.report(metric=0.5)
            assert trial._state.metrics == {"validation": 0.5}


REMEDIES = {
    "clear-gradients": "normalise-accumulation",
    "mean-loss": "normalise-accumulation",
    "learning-rate": "lower-learning-rate",
    "batch-size": "smaller-batch",
    "activation": "bounded-activation",
    "depth": "fewer-layers",
}
"""The remedies of the core whose change has another name."""


def test_changes_are_listed_in_the_order_of_the_core():
    places = {name: place for place, (name, _) in enumerate(_core.remedies())}
    kinds = [module.KIND for module in changes.CHANGES]
    # `guard` and `drop-last-batch` are ranked by themselves: the one lasts for the whole training, the
    # other is the mildest form of `larger-batch`.
    ranked = [places[name] for kind in kinds if (name := REMEDIES.get(kind, kind)) in places]
    assert len(ranked) == 20
    assert ranked == sorted(ranked)


@pytest.mark.parametrize(
    ("causes", "is_treated"),
    [(("activation", "data"), True), (("data", "activation"), False), ((), False)],
)
def test_the_core_says_which_cause_a_norm_treats(causes, is_treated):
    case = Case(causes, (), (), None, {}, layers=3)
    found = {change.kind: change.treats_cause for change in changes.propose(case)}
    assert found["batch-norm"] is found["layer-norm"] is is_treated
