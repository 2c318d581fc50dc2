"""A mistake in a call is told at the call, and never switches the guard off."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import acted, batches, is_finite, learn, loop, loss_of, mlp, watched

import tamegrad

WRONG = [
    (TypeError, "positional", lambda guard: guard.log(torch.tensor(1.0))),
    (TypeError, "acc", lambda guard: guard.log(loss=1.0, acc=0.5)),
    (TypeError, "targets: got list, want a torch.Tensor", lambda g: g.log(targets=[1.0, 2.0])),
    (TypeError, "loss: got str, want a number", lambda guard: guard.log(loss="abc")),
    (ValueError, r"shape \(4,\), want one number; .*mean", lambda g: g.log(loss=torch.ones(4))),
    (ValueError, "loss: .* too large for a float", lambda guard: guard.log(loss=10**400)),
    (ValueError, "loss: .* meta", lambda guard: guard.log(loss=torch.ones((), device="meta"))),
    (ValueError, "max_norm: got nan", lambda guard: guard.clip_(math.nan)),
    (ValueError, "for updates made by hand", lambda guard: guard.step(loss=1.0)),
]


@pytest.mark.parametrize("error, words, call", WRONG)
def test_a_wrong_call_raises_and_the_guard_protects_as_before(error, words, call):
    model = mlp()
    optimizer, guard = watched(model, "protect", strict=False)
    with pytest.raises(error, match=words):
        call(guard)
    model(torch.full((2, 16), math.inf)).sum().backward()
    optimizer.step()
    assert is_finite(model)
    assert acted(guard) == [(0, "skip")]


def test_an_error_inside_is_what_the_diagnosis_begins_with():
    model = mlp()
    optimizer, guard = watched(model, strict=False)

    def broken(*args, **kwargs):
        raise RuntimeError("no such thing")

    loop(model, optimizer, steps=2)
    guard._steps.update.before = broken
    loop(model, optimizer, steps=2)
    first = str(guard.diagnosis()).splitlines()[0]
    assert first.startswith("tamegrad stopped watching at step 2: RuntimeError: no such thing")


def test_after_a_step_that_was_left_out_the_gradients_are_those_of_the_backward_pass():
    model = mlp(2)
    parameters = list(model.parameters())
    flat = torch.zeros(sum(parameter.numel() for parameter in parameters))
    views = flat.split([parameter.numel() for parameter in parameters])
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    tamegrad.watch(model, optimizer, "protect", strict=True)
    for parameter, view in zip(parameters, views, strict=True):
        parameter.grad = view.view_as(parameter)
    model(torch.full((2, 16), math.inf)).sum().backward()
    before = [parameter.grad for parameter in parameters]
    optimizer.step()
    assert all(p.grad is gradient for p, gradient in zip(parameters, before, strict=True))
    assert parameters[0].grad.data_ptr() == flat.data_ptr()
    assert not torch.isfinite(flat).all() and not optimizer.state


def test_what_on_finding_raises_is_for_the_loop_and_leaves_the_guard_on(mode):
    class StopTraining(Exception):
        pass

    def stop(finding):
        raise StopTraining(finding.sign)

    model = mlp(2)
    optimizer, guard = watched(model, mode, on_finding=stop, strict=False)
    stopped = []
    for step, (x, y) in enumerate(batches(4)):
        try:
            learn(loss_of(model, x * (math.inf if step == 2 else 1.0), y), optimizer)
        except StopTraining as error:
            stopped.append((step, str(error)))
    assert stopped[0] == (2, "loss-nonfinite")
    assert (guard.step_number, guard.failure) == (4, None)
