"""The path for tensors of another device, forced onto CPU tensors, gives the same numbers."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import loop, mlp, state_bits, times, train, watched

from tamegrad import _device, _gradients
from tamegrad._core import Scan, Updates


def sample(n: int, scale: float = 1.0, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    return (torch.randn(n, generator=generator) * scale).to(dtype)


def test_one_read_back_gives_the_numbers_of_the_scan():
    tensors = [
        sample(100),
        sample(1000, 1e-3, torch.bfloat16),
        sample(77, 1e25),
        sample(50, 1e-30),
        torch.zeros(9),
        torch.empty(0),
        torch.tensor([math.nan, math.inf, 3.0]),
        sample(64, 1.0, torch.float64),
    ]
    rows, got, want = _device.Rows(), Scan(), Scan()
    got.tensors([None] * len(tensors))
    want.tensors([None] * len(tensors))
    for index, tensor in enumerate(tensors):
        rows.add(index, tensor)
        _gradients.put(want, index, tensor)
    rows.launch()
    rows.finish(got)
    assert len(rows) == 0
    for index in range(len(tensors)):
        (length, nans, infs, _, l2, largest, _), expected = got.get(index), want.get(index)
        assert (length, nans, infs) == expected[:3]
        assert (l2, largest) == pytest.approx((expected[4], expected[5]), rel=1e-5)


def test_updates_by_device_operations_are_those_of_the_scan():
    before = [sample(300), sample(40, 1.0, torch.bfloat16), sample(8)]
    after = [old + 1e-2 * old.cos() for old in before]
    after[2][3] = math.inf
    updates = Updates()
    updates.measure(before, after)
    for index, row in enumerate(_device.updates(list(zip(before, after, strict=True)))):
        assert row == pytest.approx(updates.get(index), rel=1e-5)


def have_a_device(monkeypatch) -> None:
    """Has all gradients read as those of a device are."""

    def read_by_rows(scan, parameters, rows=None):
        scan.tensors([None] * len(parameters))
        for index, parameter in enumerate(parameters):
            if parameter.grad is not None:
                rows.add(index, parameter.grad)

    monkeypatch.setattr("tamegrad._watched.Watched.has_device", lambda self: True)
    monkeypatch.setattr("tamegrad._gradients.read", read_by_rows)


def test_a_run_on_a_device_is_watched_alike(monkeypatch, mode):
    here = train(mode, steps=40, at_step=times(math.inf, 30))
    have_a_device(monkeypatch)
    there = train(mode, steps=40, at_step=times(math.inf, 30))
    assert there.guard.diagnosis().onset == here.guard.diagnosis().onset == 30
    assert there.guard.diagnosis().verdict == here.guard.diagnosis().verdict
    if mode == "protect":
        assert state_bits(there.model, there.optimizer) == state_bits(here.model, here.optimizer)


def test_one_read_back_a_step(monkeypatch):
    waits = []
    finish = _device.Rows.finish
    have_a_device(monkeypatch)
    monkeypatch.setattr(
        _device.Rows, "finish", lambda self, scan: (waits.append(len(self)), finish(self, scan))
    )
    model = mlp()
    optimizer, guard = watched(model, lr=0.1)
    loop(model, optimizer, steps=6)
    guard.diagnosis()
    assert waits == [10] * 6
