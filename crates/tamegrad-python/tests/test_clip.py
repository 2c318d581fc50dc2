"""``guard.clip_`` against torch's own clipping."""

from __future__ import annotations

import math

import jax
import numpy
import optax
import pytest
import torch
from conftest import mlp, times, train
from torch import nn

import tamegrad
from tamegrad import _clipping


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


def test_a_clip_is_no_part_of_a_graph_that_the_gradients_have():
    weight = nn.Parameter(torch.ones(3))
    guard = watched([weight])
    (weight**3).sum().backward(create_graph=True)
    made_by = weight.grad.grad_fn
    guard.clip_value_(0.5)
    assert weight.grad.tolist() == [0.5] * 3
    assert weight.grad.grad_fn is made_by


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("largest", [0.0, 0.3, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_as_clip_grad_value(dtype, largest, detached):
    ours, theirs = gradients(dtype), gradients(dtype)
    guard = watched(ours)
    if detached:
        guard.detach()
    norm = guard.clip_value_(largest)
    assert float(norm) == pytest.approx(
        float(nn.utils.get_total_norm([p.grad for p in theirs])), rel=1e-2
    )
    torch.nn.utils.clip_grad_value_(theirs, largest)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.grad, b.grad)


def test_an_element_of_a_sparse_gradient_is_limited_as_a_whole():
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = torch.sparse_coo_tensor([[1, 1, 2]], [0.6, 0.6, -3.0], (4,))
    watched([parameter]).clip_value_(1.0)
    assert parameter.grad.to_dense().tolist() == [0.0, 1.0, -1.0, 0.0]


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("ratio", [0.01, 0.5, 1e4])
@pytest.mark.parametrize("in_place", [True, False])
def test_the_same_as_adaptive_clipping_of_optax(ratio, detached, in_place, monkeypatch):
    if not in_place:
        # As of a tensor that lies on another device.
        monkeypatch.setattr(_clipping, "clip_units", lambda *_: False)
    generator = torch.Generator().manual_seed(6)
    # Rows of zeros, and of many sizes: some within the limit, some above it.
    sizes = torch.tensor([0.0, 1e-4, 0.1, 1.0, 30.0])
    shapes = [(5, 7), (5, 3, 2, 2), (5,)]
    parameters = []
    for shape in shapes:
        weight = torch.randn(shape, generator=generator)
        weight *= sizes.view(-1, *[1] * (len(shape) - 1))
        parameters.append(nn.Parameter(weight))
        parameters[-1].grad = torch.randn(shape, generator=generator)

    def of_optax(tensor):
        """Its layout has the outputs last."""
        dims = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[tensor.dim()]
        return jax.numpy.asarray(tensor.detach().permute(dims).numpy())

    versions = [p.grad._version for p in parameters]
    rule = optax.adaptive_grad_clip(ratio)
    weights = [of_optax(p) for p in parameters]
    want, _ = rule.update([of_optax(p.grad) for p in parameters], rule.init(weights), weights)
    guard = watched(parameters)
    if detached:
        guard.detach()
    guard.clip_units_(ratio)
    for parameter, expected in zip(parameters, want, strict=True):
        numpy.testing.assert_allclose(of_optax(parameter.grad), expected, rtol=1e-5)
    assert all(p.grad._version > old for p, old in zip(parameters, versions, strict=True))


@pytest.mark.parametrize(
    ("clip", "arguments"),
    [("clip_value_", {"max_value": -1.0}), ("clip_units_", {"ratio": math.nan})],
)
def test_a_limit_that_is_none_is_refused(clip, arguments):
    with pytest.raises(ValueError, match="want a number of at least 0"):
        getattr(watched(gradients()), clip)(**arguments)


def test_clipping_by_unit_leaves_out_what_it_is_told_to():
    model = mlp()
    guard = tamegrad.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), strict=True)
    model(torch.ones(2, 16)).sum().backward()
    last, first = model[-1].weight.grad.clone(), model[0].weight.grad.clone()
    guard.clip_units_(1e-5, skip=[model[-1]])
    assert torch.equal(model[-1].weight.grad, last)
    assert float(model[0].weight.grad.norm()) < 0.1 * float(first.norm())


@pytest.mark.parametrize("clip", ["clip_value_", "clip_units_"])
def test_every_clip_leaves_what_is_not_finite_as_it_is(clip):
    parameters = gradients()
    parameters[1].grad[2, 3] = math.inf
    before = [p.grad.clone() for p in parameters]
    norm = getattr(watched(parameters), clip)(1.0)
    assert math.isfinite(norm)
    assert all(torch.equal(p.grad, b) for p, b in zip(parameters, before, strict=True))


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


def test_what_is_not_finite_never_becomes_nan_and_its_step_is_left_out():
    parameters = gradients()
    parameters[1].grad[2, 3] = math.inf
    before = [(p.detach().clone(), p.grad, p.grad.clone()) for p in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    model = nn.ParameterList(parameters)
    guard = tamegrad.watch(model, optimizer, strict=True)
    norm = guard.clip_(1.0)
    optimizer.step()
    assert math.isfinite(norm)
    for parameter, (value, gradient, elements) in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is gradient and torch.equal(gradient, elements)
    parameters = gradients()
    parameters[1].grad[2, 3] = math.nan
    with pytest.raises(RuntimeError, match="1 elements of the gradients are not finite"):
        watched(parameters).clip_(1.0, error_if_nonfinite=True)


def test_a_run_that_is_clipped_by_the_guard_follows_the_one_clipped_by_torch(mode):
    ours = train(mode, clip=0.3, optimizer="sgd-momentum", steps=40)
    theirs = train(None, clip=0.3, optimizer="sgd-momentum", steps=40)
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert ours.guard.diagnosis().verdict == "healthy"


def test_a_clipped_step_that_is_not_finite_changes_nothing(mode):
    run = train(mode, clip=1.0, at_step=times(math.inf, 20), steps=40)
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
