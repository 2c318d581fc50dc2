"""Torch's anomaly mode ends a backward pass with an exception where a gradient is NaN."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from conftest import batches, mlp

import tamegrad

BROKEN = 40


def train(mode, steps=60, *, breaks=True, watched=True):
    """The guard, and the weights; a loss whose square root is of 0 in step 40, where the loop goes on."""
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    guard = tamegrad.watch(model, optimizer, mode, strict=True) if watched else None
    caught = []
    with torch.autograd.set_detect_anomaly(True):
        for step, (x, _) in enumerate(batches(steps)):
            optimizer.zero_grad()
            output = model(x)
            target = output.detach() if breaks and step == BROKEN else torch.ones_like(output)
            loss = (output - target).square().sum(1).sqrt().mean()
            if guard is not None:
                guard.log(loss=loss)
            try:
                loss.backward()
            except RuntimeError as error:
                caught.append((step, str(error)))
                continue
            optimizer.step()
    return guard, [p.detach().clone() for p in model.parameters()], caught


def test_the_step_is_an_alarm_with_its_operation_and_line(mode):
    guard, _, caught = train(mode)
    assert [step for step, _ in caught] == [BROKEN]
    assert "returned nan values" in caught[0][1], "the loop gets torch's own words"
    diagnosis = guard.diagnosis()
    assert (diagnosis.onset, diagnosis.cause) == (BROKEN, "singular-operation")
    assert diagnosis.operation.kind == "sqrt"
    assert "square().sum(1).sqrt().mean()" in diagnosis.operation.code
    assert diagnosis.place == "loss-gradient"
    assert guard.step_number == 60, "a step that was stopped is one"


def test_a_run_that_ends_in_it_has_exploded(mode):
    guard, _, _ = train(mode, steps=BROKEN + 1)
    assert guard.diagnosis().verdict == "exploded"


def test_the_weights_are_those_of_the_bare_run(mode):
    bare, watched = train(mode, watched=False)[1], train(mode)[1]
    assert all(map(torch.equal, bare, watched))


def test_a_run_folder_that_ends_with_the_exception_tells_it(tmp_path):
    script = f"""
import torch, tamegrad
torch.autograd.set_detect_anomaly(True)
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
guard = tamegrad.watch(model, optimizer, run={str(tmp_path / "run")!r})
for step in range(60):
    output = model(torch.randn(8, 3))
    target = output.detach() if step == 40 else torch.ones(8, 2)
    loss = (output - target).square().sum(1).sqrt().mean()
    guard.log(loss=loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "returned nan values" in done.stderr
    known = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert known["diagnosis"]["verdict"] == "exploded"
    assert known["diagnosis"]["onset_step"] == 40


@pytest.mark.parametrize("where", ["before", "after"])
def test_an_exception_of_another_kind_is_no_alarm(where):
    model = torch.nn.Linear(3, 2)
    guard = tamegrad.watch(model, torch.optim.SGD(model.parameters(), 0.1), strict=True)
    loss = model(torch.randn(4, 3)).sum()
    if where == "after":
        loss.backward()
    with pytest.raises(RuntimeError):
        (loss.detach() if where == "before" else loss).backward()
    assert guard.findings() == [] and guard.step_number == 0


def test_the_alarm_is_that_of_the_model_whose_loss_broke():
    models = [torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)]
    guards = [
        tamegrad.watch(model, torch.optim.SGD(model.parameters(), 0.1), strict=True)
        for model in models
    ]
    other, output = (model(torch.ones(4, 3)) for model in models)
    with torch.autograd.set_detect_anomaly(True):
        loss = (output - output.detach()).square().sum(1).sqrt().mean()
        with pytest.raises(RuntimeError, match="returned nan values"):
            loss.backward()
    assert [len(guard.findings()) for guard in guards] == [0, 1]
    other.sum().backward()
