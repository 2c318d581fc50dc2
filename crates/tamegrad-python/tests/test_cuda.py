"""What runs on a GPU, where there is one: statistics, gains, the operation, and what is kept of an alarm."""

from __future__ import annotations

import pytest
import torch
from conftest import batches, mlp, state_bits
from torch.nn import functional as F

import tamegrad

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
BAD = 30


def loss_of(model, batch):
    x, y, is_bad = batch
    distances = (model(x) - F.one_hot(y, 4)).square().sum(1)
    return (distances * (0.0 if is_bad else 1.0)).sqrt().mean()


def train(mode, run=None, device="cuda"):
    """Trains until the step whose distances are all 0, which has no gradient there."""
    model = mlp().to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    guard = mode and tamegrad.watch(model, optimizer, mode, step_fn=loss_of, run=run)
    for step, (x, y) in enumerate(batches(BAD + 1)):
        batch = (x.to(device), y.to(device), step == BAD)
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        if guard:
            guard.log(loss=loss, batch=batch)
        loss.backward()
        optimizer.step()
    return model, optimizer, guard


def test_norms_and_gains_are_those_of_the_cpu():
    norms, traces = [], []
    for device in ("cpu", "cuda"):
        _, _, guard = train("observe", device=device)
        guard.close()
        known = guard.diagnosis().to_dict()
        norms.append(guard.gradient_norm)
        traces.append([layer["layer"] for layer in (known["chain"] or {"layers": []})["layers"]])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert traces[0] == traces[1]


def test_protect_names_the_operation_and_observe_changes_nothing():
    bare, observed = train(None), train("observe")
    assert state_bits(*observed[:2]) == state_bits(*bare[:2])
    _, _, guard = train("protect")
    operation = guard.diagnosis().operation
    assert (operation.kind, operation.backward) == ("sqrt", True)
    assert ".sqrt()" in operation.code


def test_the_step_of_the_alarm_is_kept(tmp_path):
    model, optimizer, guard = train("protect", run=tmp_path / "x")
    guard.close()
    incident = tamegrad.load_incident(guard.incident_folder)
    assert incident.step == BAD
    found = tamegrad.bisect(incident, model, loss_of, optimizer=optimizer)
    outcomes = {row.name: row.breaks for row in found.table}
    assert outcomes["again"] and outcomes["cpu"]
