"""Loops of other libraries: anything that is an array of floats."""

from __future__ import annotations

import array
import math

import numpy
import pytest
import torch

import tamegrad


def spike(step: int) -> float:
    return (1.0 + 0.1 * math.sin(step)) * (1e4 if step >= 150 else 1.0)


KINDS = {
    "numpy": lambda v: numpy.full((3, 4), v, dtype=numpy.float32),
    "numpy f64, strided": lambda v: numpy.full((6, 4), v)[::2],
    "torch": lambda v: torch.full((3, 4), v),
    "torch bf16": lambda v: torch.full((3, 4), v).bfloat16(),
    "array": lambda v: array.array("f", [v] * 12),
    "read-only bytes": lambda v: memoryview(bytes(array.array("d", [v] * 12))).cast("d"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_explosion_is_found_in_arrays_of_every_kind(kind):
    guard = tamegrad.ArrayGuard()
    for step in range(160):
        loss = 1.0 if step < 150 else 50.0
        guard.observe(step, loss, {"a": KINDS[kind](spike(step)), "b": KINDS[kind](spike(step))})
    diagnosis = guard.diagnosis()
    assert (diagnosis.onset, diagnosis.verdict) == (150, "exploding")
    assert diagnosis.origin in ("a", "b")


def test_a_run_of_arrays_goes_on_from_its_state():
    def go_on(guard, steps):
        for step in steps:
            loss = 1.0 if step < 150 else 50.0
            guard.observe(step, loss, {"a": KINDS["numpy"](spike(step))})
        return guard

    whole = go_on(tamegrad.ArrayGuard(), range(160))
    resumed = tamegrad.ArrayGuard()
    resumed.load_state_dict(go_on(tamegrad.ArrayGuard(), range(120)).state_dict())
    assert resumed.last_step == 119
    assert str(go_on(resumed, range(120, 160)).diagnosis()) == str(whole.diagnosis())
    for state in ({"core": None}, {**whole.state_dict(), "core": b"other"}, 3):
        with pytest.raises(ValueError, match="state|want the state of a guard"):
            resumed.load_state_dict(state)
    assert resumed.last_step == 159


def test_norms_are_those_of_the_elements():
    guard = tamegrad.ArrayGuard()
    guard.observe(0, 1.0, {"a": KINDS["read-only bytes"](2.0)})
    assert guard._scan.norm() == pytest.approx(2.0 * math.sqrt(12))


class Name(str):
    """A name that counts how often it is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Name.compared += 1
        return str.__eq__(self, other)


def test_a_step_costs_the_same_for_each_of_many_arrays():
    names, array = range(2000), numpy.ones(3, dtype=numpy.float32)
    guard = tamegrad.ArrayGuard()
    for step in range(3):
        # Names made anew, as by a loop that flattens a tree.
        guard.observe(step, 1.0, {Name(f"layers.{index}"): array for index in names})
    assert Name.compared < 10 * 3 * len(names)


def test_one_guard_for_the_process_begins_anew_with_the_steps():
    for _ in range(2):
        for step in range(3):
            guard = tamegrad.observe(step, 1.0, {"w": numpy.ones(3)})
        assert guard.last_step == 2
    assert guard.diagnosis().verdict == "too-early"


def test_what_is_no_array_of_floats_is_named():
    with pytest.raises(TypeError, match="w: got ndarray of int64, want an array of f32"):
        tamegrad.ArrayGuard().observe(0, 1.0, {"w": numpy.ones(3, dtype=numpy.int64)})
    guard = tamegrad.ArrayGuard()
    guard.observe(0, 1.0, {"w": numpy.ones(3)})
    with pytest.raises(ValueError, match="got the new name 'v'"):
        guard.observe(1, 1.0, {"v": numpy.ones(3)})
