"""Loops that look at their loss themselves leave a pass that is not finite before its backward pass."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from conftest import batches, mlp
from torch import nn
from torch.nn.functional import cross_entropy

import tamegrad

BROKEN = 40


class Checked(nn.Module):
    """A model that refuses its own values, as those with a distribution at the end do."""

    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        output = self.net(x)
        assert output.isfinite().all()
        return output


def train(mode, left, *, logs=True, watched=True, steps=BROKEN + 1, make=mlp, broken=(BROKEN,)):
    """The guard and the weights of a loop that does ``left`` where its loss is not finite."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    guard = tamegrad.watch(model, optimizer, mode, strict=True) if watched else None
    for step, (x, y) in enumerate(batches(steps)):
        if step in broken:
            x[1, 2] = math.nan
        try:
            loss = cross_entropy(model(x), y)
            if guard is not None and logs:
                guard.log(loss=loss)
            if not loss.isfinite():
                if left == "continue":
                    continue
                if left == "clear":
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.zero_grad()
                    continue
                if left == "break":
                    break
                if left == "backward":
                    loss.backward()
                    break
                sys.exit("loss is nan, stopping")
        except (AssertionError, SystemExit):
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return guard, [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("logs", [True, False])
@pytest.mark.parametrize("left", ["break", "exit", "backward"])
def test_a_run_that_its_loop_ends_has_exploded(mode, left, logs):
    guard, _ = train(mode, left, logs=logs)
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset) == ("exploded", BROKEN)
    assert diagnosis.cause == "data"
    assert guard.diagnosis().to_dict() == diagnosis.to_dict(), "asked twice it is told once"


def test_so_has_one_whose_model_raises(mode):
    guard, _ = train(mode, "continue", make=Checked, logs=False)
    guard.close()
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset, diagnosis.cause) == ("exploded", BROKEN, "data")


@pytest.mark.parametrize(("left", "logs"), [("continue", True), ("clear", True), ("clear", False)])
def test_a_batch_that_the_loop_leaves_out_is_a_step_with_an_alarm(mode, left, logs):
    guard, _ = train(mode, left, logs=logs, steps=120)
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset, diagnosis.cause) == ("recovered", BROKEN, "data")
    assert guard.step_number == 120
    rows = guard._steps.core.findings(0)
    assert len(rows) == 1, rows


@pytest.mark.parametrize("left", ["continue", "clear"])
def test_the_weights_are_those_of_the_bare_run(mode, left):
    bare = train(mode, left, steps=120, watched=False)[1]
    assert all(map(torch.equal, bare, train(mode, left, steps=120)[1]))


def test_a_micro_batch_whose_gradient_stays_is_no_step_of_its_own(mode):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for step, (x, y) in enumerate(batches(120)):
        if step == BROKEN:
            x[0, 0] = math.nan
        loss = cross_entropy(model(x), y)
        guard.log(loss=loss)
        loss.backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    assert guard.step_number == 30
    assert guard.diagnosis().onset == BROKEN // 4


def test_protect_turns_back_a_run_whose_loop_leaves_out_every_batch():
    def broken_later():
        model = mlp()
        calls = iter(range(1000))

        def breaks(module, given):
            if next(calls) == BROKEN:
                with torch.no_grad():
                    next(module.parameters()).fill_(math.nan)

        model[0].register_forward_pre_hook(breaks)
        return model

    guard, weights = train("protect", "continue", steps=200, make=broken_later, broken=())
    assert "rewind" in {action for _, action, *_ in guard.actions()} or all(
        weight.isfinite().all() for weight in weights
    )
    assert guard.diagnosis().verdict != "healthy"


@pytest.mark.parametrize("last", ["validation", "masked", "accumulated", "no gradient"])
def test_what_is_finite_is_no_alarm(mode, last):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for x, y in batches(60):
        loss = cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x, y = next(iter(batches(1)))
    if last == "validation":
        cross_entropy(model(x), y)
    elif last == "masked":
        model(x).masked_fill_(torch.ones(4).bool(), -math.inf)
    elif last == "accumulated":
        cross_entropy(model(x), y).backward()
    else:
        with torch.no_grad():
            model(x * math.nan)
    guard.close()
    assert guard.diagnosis().verdict == "healthy"
    assert guard.step_number == 60


def test_an_overflow_that_a_scaler_would_have_mended_is_no_alarm(mode):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**120)
    guard = tamegrad.watch(model, optimizer, mode, scaler=scaler, strict=True)
    x, y = next(iter(batches(1)))
    loss = cross_entropy(model(x), y)
    guard.log(loss=loss)
    scaler.scale(1e9 * loss).backward()
    guard.close()
    assert guard.diagnosis().verdict != "exploded"


def test_a_run_folder_that_ends_so_tells_it(tmp_path):
    script = f"""
import sys, torch, tamegrad
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), 0.01)
guard = tamegrad.watch(model, optimizer, run={str(tmp_path / "run")!r})
def train():
    for step in range(60):
        x = torch.full((8, 3), float("nan")) if step == 40 else torch.randn(8, 3)
        loss = (model(x) - 1).square().mean()
        if not loss.isfinite():
            print("loss is nan, stopping")
            sys.exit(1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
train()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    report = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert report["diagnosis"]["verdict"] == "exploded", report


def test_a_weight_that_is_nan_before_the_first_step_is_named(mode):
    model = mlp()
    with torch.no_grad():
        model[2].weight[3, 4] = math.nan
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for x, y in batches(3):
        loss = cross_entropy(model(x), y)
        guard.log(loss=loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    diagnosis = guard.diagnosis()
    assert (diagnosis.cause, diagnosis.origin, diagnosis.onset) == ("initialisation", "2", 0)
    assert "2.weight" in str(diagnosis).split("First NaN/Inf")[1].splitlines()[0]


@pytest.mark.parametrize("clears", ["never", "before", "after", "zeros"])
def test_gradients_that_are_never_cleared_are_the_cause(mode, clears, recwarn):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for x, y in batches(150):
        loss = cross_entropy(model(x), y)
        guard.log(loss=loss)
        if clears == "before":
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clears in ("after", "zeros"):
            optimizer.zero_grad(set_to_none=clears == "after")
    is_told = any("optimizer.zero_grad()" in str(warning.message) for warning in recwarn)
    assert is_told == (clears == "never")
    assert (guard.diagnosis().cause == "accumulation") == (clears == "never")


@pytest.mark.parametrize("clears", [True, False])
def test_so_they_are_in_a_run_that_learns_nothing_and_has_no_alarm(mode, clears):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for x, _ in batches(200):
        loss = cross_entropy(model(x), torch.randint(0, 4, (len(x),)))
        if clears:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        guard.log(loss=loss)
    diagnosis = guard.diagnosis()
    assert diagnosis.verdict == "not-learning"
    assert diagnosis.cause == (None if clears else "accumulation")
    if not clears:
        assert "clear the gradients in every step" in str(diagnosis.remedies[0])


def test_a_diagnosis_in_the_middle_of_a_step_changes_nothing(mode):
    def run(asks):
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        guard = tamegrad.watch(model, optimizer, mode, strict=True)
        for step, (x, y) in enumerate(batches(120)):
            if step == BROKEN:
                x[0, 0] = math.nan
            loss = cross_entropy(model(x), y)
            guard.log(loss=loss)
            if asks:
                guard.diagnosis()
            optimizer.zero_grad()
            loss.backward()
            if asks:
                guard.diagnosis()
            guard.clip_(1.0)
            if asks:
                guard.diagnosis()
            optimizer.step()
        return guard, [p.detach().clone() for p in model.parameters()]

    (bare, expected), (guard, weights) = run(False), run(True)
    assert all(map(torch.equal, expected, weights))
    assert guard.step_number == bare.step_number == 120
    assert guard.diagnosis().to_dict() == bare.diagnosis().to_dict()


@pytest.mark.parametrize("steps", [(20, 21), (20, 21, 22, 23)])
def test_each_of_several_broken_batches_in_a_row_is_a_step(mode, steps):
    guard, _ = train(mode, "clear", steps=60, broken=steps)
    assert sorted({finding.step for finding in guard.findings()}) == list(steps)
    assert guard.step_number == 60


@pytest.mark.parametrize("kind", ["a metric", "evaluation"])
def test_a_nan_that_the_loss_is_not_made_of_is_no_alarm(mode, kind):
    class Measured(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x, y):
            output = self.net(x)
            return {"objective": cross_entropy(output, y), "iou": 0.0 * output.mean() / 0.0}

    model = Measured()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for x, y in batches(60):
        optimizer.zero_grad()
        model(x, y)["objective"].backward()
        optimizer.step()
    if kind == "evaluation":
        model.eval()
        x = x * math.nan
    model(x, y)
    assert guard.diagnosis().verdict == "healthy"
    guard.close()
    assert guard.diagnosis().verdict == "healthy"


def test_what_two_guards_leave_to_each_other_is_cleared(recwarn):
    models = [mlp(), nn.Linear(16, 16)]
    optimizers = [torch.optim.SGD(model.parameters(), 0.01) for model in models]
    guards = [
        tamegrad.watch(model, optimizer, strict=True)
        for model, optimizer in zip(models, optimizers, strict=True)
    ]
    for x, y in batches(20):
        optimizers[0].zero_grad()
        cross_entropy(models[0](x), y).backward()
        optimizers[0].step()
        optimizers[1].zero_grad()
        (-cross_entropy(models[0](models[1](x)), y)).backward()
        optimizers[1].step()
    assert [
        str(warning.message) for warning in recwarn if "zero_grad" in str(warning.message)
    ] == []
    assert all(guard.diagnosis().cause is None for guard in guards)


def test_an_exception_of_the_users_own_function_comes_to_the_loop(mode):
    class Stop(Exception):
        pass

    def stop(finding):
        raise Stop

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    guard = tamegrad.watch(model, optimizer, mode, strict=True, on_finding=stop)
    with pytest.raises(Stop):
        for step, (x, y) in enumerate(batches(60)):
            if step == BROKEN:
                x[0, 0] = math.nan
            loss = cross_entropy(model(x), y)
            guard.log(loss=loss)
            if not loss.isfinite():
                continue
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
