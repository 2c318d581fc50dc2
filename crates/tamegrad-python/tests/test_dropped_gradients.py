"""Loops that look at their gradients themselves clear those that are not finite and make no step."""

from __future__ import annotations

import pytest
import torch
from conftest import batches, mlp
from torch import nn
from torch.nn.functional import cross_entropy

import tamegrad
from tamegrad import _clears

BROKEN = 40


class Apart(nn.Module):
    """Its gradient is NaN, and its loss finite, where two rows are the same: the root of their
    distance, 0, has no slope."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        output = self.net(x)
        distance = (output - output.roll(1, 0)).square().sum(1, keepdim=True).sqrt()
        return output + 0.1 * distance


def train(
    mode,
    clears,
    *,
    steps=120,
    watched=True,
    broken=(BROKEN,),
    dropped=(),
    clips=False,
    logs="no",
):
    """The guard and the weights of a loop that does ``clears`` where its gradients are not finite, and
    at some steps besides."""
    torch.manual_seed(0)
    model = Apart()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    guard = tamegrad.watch(model, optimizer, mode, strict=True) if watched else None
    for step, (x, y) in enumerate(batches(steps)):
        if step in broken:
            x[1] = x[0]
        loss = cross_entropy(model(x), y)
        if guard is not None and logs == "before":
            guard.log(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        if clips:
            guard.clip_(1e9)
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        if step in dropped or not norm.isfinite():
            if clears == "break":
                break
            if clears == "model":
                model.zero_grad()
            else:
                optimizer.zero_grad(set_to_none=clears == "none")
            continue
        optimizer.step()
        if guard is not None and logs == "after":
            guard.log(loss=loss)
    return guard, [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("logs", ["no", "before", "after"])
@pytest.mark.parametrize("clears", ["none", "zeros", "model"])
def test_a_step_that_the_loop_leaves_out_is_one_with_an_alarm(mode, clears, logs):
    guard, _ = train(mode, clears, logs=logs)
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset) == ("recovered", BROKEN)
    assert diagnosis.cause == "singular-operation"
    assert [finding.step for finding in guard.findings() if finding.severity == "alarm"] == [BROKEN]
    assert guard.step_number == 120


def test_a_run_whose_every_step_is_left_out_has_exploded(mode):
    guard, _ = train(mode, "none", broken=range(BROKEN, 120))
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset) == ("exploded", BROKEN)


def test_so_has_one_that_its_loop_ends(mode):
    guard, _ = train(mode, "break")
    early = guard.diagnosis()
    assert (early.verdict, early.onset, early.cause) == ("exploding", BROKEN, "singular-operation")
    guard.close()
    assert guard.diagnosis().to_dict() == early.to_dict()


@pytest.mark.parametrize("clears", ["none", "zeros", "model"])
def test_the_weights_are_those_of_the_bare_run(clears):
    bare = train("off", clears, watched=False)[1]
    assert all(map(torch.equal, bare, train("observe", clears)[1]))


def test_gradients_that_the_guard_has_read_for_a_clip_are_judged_as_well(mode):
    guard, _ = train(mode, "none", clips=True)
    assert (guard.diagnosis().verdict, guard.diagnosis().onset) == ("recovered", BROKEN)
    assert guard.step_number == 120


def test_finite_gradients_that_are_dropped_are_no_step(mode):
    guard, _ = train(mode, "none", broken=(), dropped=range(50, 60))
    assert guard.diagnosis().verdict == "healthy"
    assert guard.step_number == 110


def test_an_overflow_that_a_lower_loss_scale_mends_is_no_alarm(mode):
    torch.manual_seed(0)
    model = mlp()
    with torch.no_grad():
        model[0].weight.div_(1e4)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126, growth_interval=1000)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    left_out = 0
    for x, y in batches(60):
        loss = cross_entropy(model(1e4 * x), y)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        if not norm.isfinite():
            left_out += 1
            optimizer.zero_grad()
            scaler.update(scaler.get_scale() / 2**32)
            continue
        scaler.step(optimizer)
        scaler.update()
        guard.log(loss=loss)
    assert left_out
    assert not [finding for finding in guard.findings() if finding.severity == "alarm"]


def test_what_another_model_clears_is_left_alone(mode):
    """In a GAN the gradients of one model pass through the other."""
    guards, models = [], [mlp(), mlp()]
    optimizers = [torch.optim.SGD(model.parameters(), 0.02) for model in models]
    for model, optimizer in zip(models, optimizers, strict=True):
        guards.append(tamegrad.watch(model, optimizer, mode, strict=True))
    for x, y in batches(60):
        for own in (0, 1):
            losses = [cross_entropy(model(x), y) for model in models]
            sum(losses).backward()
            optimizers[own].step()
            for optimizer in optimizers:
                optimizer.zero_grad()
    for guard in guards:
        assert guard.step_number == 60
        assert guard.diagnosis().verdict == "healthy"


def test_torch_is_as_it_was_afterwards():
    def cleared_by():
        return torch.optim.Optimizer.zero_grad, nn.Module.zero_grad

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    # Guards of other tests may live on.
    for seer in list(_clears._seers):
        _clears.detach(seer)
    tamegrad.watch(model, optimizer).close()
    before = cleared_by()
    guard = tamegrad.watch(model, optimizer)
    assert all(now is not was for now, was in zip(cleared_by(), before, strict=True))
    guard.close()
    assert cleared_by() == before
