"""Preflight and remedies for user models: without them a run fails, with them it does not."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import Exp, batches, loop, loss_of, mlp, state_bits
from torch import nn

import tamegrad


def deep(gain: float, depth: int = 30) -> nn.Sequential:
    """A deep ReLU network whose weights are ``gain`` times what He wants."""
    model = mlp(depth, activation=nn.ReLU)
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight)
                layer.weight.mul_(gain)
    return model


def loss_fn(model, batch):
    return loss_of(model, *batch)


def loss_after(model: nn.Module) -> float:
    losses = loop(model, torch.optim.SGD(model.parameters(), lr=0.05), steps=150)
    return sum(losses[-10:]) / 10


def test_preflight_leaves_everything_as_it_is():
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters())
    before, chance = state_bits(model, optimizer), torch.get_rng_state()
    result = tamegrad.preflight(model, loss_fn, next(batches(1)), optimizer)
    assert state_bits(model, optimizer) == before
    assert torch.equal(torch.get_rng_state(), chance)
    assert [p.grad for p in model.parameters()] == [None] * 10
    assert not optimizer.state
    assert result.ok
    assert str(result).startswith("Ready: nothing wrong before the first update\n")


@pytest.mark.parametrize(
    ("model", "rate", "problem"),
    [
        (lambda: deep(2.0), 1e-4, "backward gains multiply to 9.56e8 over 60 layers"),
        (
            lambda: nn.Sequential(nn.Linear(16, 8), *[Exp()] * 5),
            1e-4,
            "will overflow at 1@3: its output is not finite",
        ),
        (lambda: mlp(), 1e3, "the first update changes 8.weight by 161 times its size"),
        (lambda: mlp(), 1e3, "this learning rate is 162 times the largest that lowers the loss"),
    ],
)
def test_preflight_names_what_would_go_wrong(model, rate, problem):
    model = model()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    result = tamegrad.preflight(model, loss_fn, next(batches(1)), optimizer)
    assert problem in result.problems
    assert f"  - {problem}\n" in str(result)
    assert result.to_dict()["warnings"] == result.problems
    assert not result.ok


def test_preflight_names_the_first_layer_that_overflows():
    model = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), Exp(), Exp(), Exp(), Exp(), nn.Linear(8, 4))
    result = tamegrad.preflight(model, loss_fn, next(batches(1)))
    assert result.nonfinite_at == "5"
    assert result.update_ratio is None and result.critical_multiple is None


@pytest.mark.parametrize(
    ("rate", "multiple"), [(1.0, 0.5), (0.25, 2.0), (0.1, math.inf), (1e6, 0.0)]
)
def test_preflight_finds_the_largest_rate_that_lowers_the_loss(rate, multiple):
    class Quadratic(nn.Module):
        """The loss 2 w^2 and noise, which a step of SGD lowers below a rate of 1/2."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, 1))
            self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)
            self.noise = nn.Dropout()
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, batch):
            self.calls += 1.0
            # The same elements are dropped in every pass, or the loss would change by that.
            return 2.0 * self.w.square().sum() + self.noise(batch).sum()

    model = Quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    result = tamegrad.preflight(model, lambda m, b: m(b), torch.ones(64), optimizer)
    assert result.critical_multiple == pytest.approx(multiple, rel=0.03)
    assert float(model.calls) == 0.0


def test_preflight_counts_a_loss_that_cannot_be_computed_as_raised():
    class Checked(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1, 1))

        def forward(self, batch):
            if float(self.w) < 0.5:
                raise ValueError("w: want at least 0.5")
            return self.w.square().sum()

    model = Checked()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    result = tamegrad.preflight(model, lambda m, b: m(b), None, optimizer)
    assert result.critical_multiple == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize("scheme", ["lsuv", "he"])
def test_reinitialize__makes_a_network_trainable(scheme):
    model = deep(2.0)
    tamegrad.reinitialize_(model, next(batches(1))[0], scheme=scheme)
    rescued = loss_after(model)
    assert rescued < 1.2 < loss_after(deep(2.0)) or not math.isfinite(loss_after(deep(2.0)))


def test_lsuv_gives_every_layer_a_deviation_of_one():
    model = deep(3.0)
    deviations = tamegrad.reinitialize_(model, next(batches(1))[0])
    assert len(deviations) == 31
    assert all(abs(deviation - 1.0) <= 0.1 for deviation in deviations.values())
    assert all(not module._forward_hooks for module in model.modules())


def test_orthogonal_layers_keep_lengths():
    model = mlp()
    tamegrad.reinitialize_(model, scheme="orthogonal")
    weight = model[2].weight
    assert torch.allclose(weight @ weight.t(), torch.eye(32), atol=1e-5)


@pytest.mark.parametrize(
    ("place", "kinds"),
    [
        ("before", ["Linear", "BatchNorm1d", "ReLU"]),
        ("after", ["Linear", "ReLU", "BatchNorm1d"]),
    ],
)
def test_batch_norm_cures_a_wrong_scale(place, kinds):
    model = deep(2.0, depth=8)
    assert tamegrad.add_batch_norm(model, place) == 8
    assert [type(layer).__name__ for layer in model[:3]] == kinds
    assert isinstance(model[-1], nn.Linear)
    bare = loss_after(deep(2.0, depth=8))
    assert loss_after(model) < 1.25 and not bare < 1.3, bare


def test_a_convolution_gets_batch_norm_of_its_channels():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    assert tamegrad.add_batch_norm(model) == 1
    assert model[1].num_features == 6
    assert model(torch.randn(2, 3, 8, 8)).shape == (2, 4)


def test_a_model_that_cannot_be_rewritten_is_an_error_with_names():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x):
            return self.act(self.first(x))

    with pytest.raises(ValueError, match="cannot be added to Own: act: used in its own forward"):
        tamegrad.add_batch_norm(Own())


def test_penalties_are_sums_over_matrices():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))
    assert float(tamegrad.weight_penalty(model, l1=0.5, l2=0.1)) == pytest.approx(
        0.5 * 6 + 0.1 * 14
    )
    tamegrad.weight_penalty(model, l2=0.1).backward()
    assert torch.allclose(model[0].weight.grad, 0.2 * model[0].weight)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: tamegrad.reinitialize_(mlp()), "batch: got None"),
        (lambda: tamegrad.reinitialize_(mlp(), scheme="ones"), "scheme: got 'ones'"),
        (
            lambda: tamegrad.reinitialize_(nn.ReLU(), scheme="he"),
            "no linear or convolutional layer",
        ),
        (lambda: tamegrad.add_batch_norm(mlp(), "within"), "place: got 'within'"),
        (lambda: tamegrad.weight_penalty(nn.ReLU()), "no trainable weight matrix"),
    ],
)
def test_a_wrong_argument_is_said(call, error):
    with pytest.raises(ValueError, match=error):
        call()
