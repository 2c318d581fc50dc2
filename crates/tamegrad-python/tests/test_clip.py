"""``guard.clip_`` against torch's own clipping."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import mlp, train
from torch import nn

import tamegrad


def gradients(dtype=torch.float32, scale: float = 1.0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(5)
    parameters = []
    for shape in [(3, 4), (100, 70), (7,), ()]:
        parameter = nn.Parameter(torch.zeros(shape, dtype=dtype))
        parameter.grad = (torch.randn(shape, generator=generator) * scale).to(dtype)
        parameters.append(parameter)
    return parameters


def watched(parameters, **options):
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    return tamegrad.watch(nn.ParameterList(parameters), optimizer, strict=True, **options)


@pytest.mark.parametrize("max_norm", [0.1, 1.0, 50.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_same_as_clip_grad_norm(dtype, max_norm):
    ours, theirs = gradients(dtype), gradients(dtype)
    norm = watched(ours).clip_(max_norm)
    oracle = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    precision = {
        torch.float64: 1e-6,
        torch.float32: 1e-5,
        torch.float16: 2e-3,
        torch.bfloat16: 2e-2,
    }[dtype]
    assert float(norm) == pytest.approx(float(oracle), rel=precision)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad.double(), b.grad.double(), rtol=precision, atol=1e-7)


def test_a_norm_that_f32_cannot_hold_is_clipped_right():
    parameters = gradients(scale=1e25)
    norm = watched(parameters).clip_(1.0)
    assert math.isfinite(norm)
    total = math.hypot(*(float(p.grad.double().norm()) for p in parameters))
    assert total == pytest.approx(1.0, rel=1e-6)


def test_within_the_limit_nothing_is_written():
    parameters = gradients()
    before = [(p.grad._version, p.grad.clone()) for p in parameters]
    watched(parameters).clip_(1e6)
    for parameter, (version, gradient) in zip(parameters, before, strict=True):
        assert parameter.grad._version == version
        assert torch.equal(parameter.grad, gradient)


def test_what_is_not_finite_is_taken_away_and_never_becomes_nan():
    parameters = gradients()
    parameters[1].grad[2, 3] = math.inf
    guard = watched(parameters)
    norm = guard.clip_(1.0)
    assert math.isfinite(norm)
    assert [p.grad for p in parameters] == [None] * 4
    parameters = gradients()
    parameters[1].grad[2, 3] = math.nan
    with pytest.raises(RuntimeError, match="1 elements of the gradients are not finite"):
        watched(parameters).clip_(1.0, error_if_nonfinite=True)


@pytest.mark.parametrize("mode", ["observe", "protect"])
def test_a_run_that_is_clipped_by_the_guard_follows_the_one_clipped_by_torch(mode):
    ours = train(mode, clip=0.3, optimizer="sgd-momentum", steps=40)
    theirs = train(None, clip=0.3, optimizer="sgd-momentum", steps=40)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert ours.guard.diagnosis().verdict == "healthy"


def test_a_clipped_step_that_is_not_finite_changes_nothing():
    def plant(step, model, optimizer, x):
        return x * math.inf if step == 20 else x

    for mode in ("observe", "protect"):
        run = train(mode, clip=1.0, at_step=plant, steps=40)
        assert math.isfinite(run.losses[-1])
        assert run.guard.diagnosis().onset == 20


def test_after_detaching_torch_clips():
    model = mlp()
    guard = tamegrad.watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    guard.detach()
    model(torch.ones(2, 16)).sum().backward()
    norm = guard.clip_(1e-3)
    assert float(norm) > 1e-3
    total = math.hypot(*(float(p.grad.norm()) for p in model.parameters()))
    assert total == pytest.approx(1e-3, rel=1e-3)
