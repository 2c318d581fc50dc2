"""Every diagnosis follows the documented JSON Schema, and findings hold numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jsonschema
import numpy
import pytest
import torch
from conftest import batches, loss_of, mlp, times, train

import tamegrad

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/diagnosis.schema.json").read_text())


broken_batch = times(math.inf, 30)


def of_arrays() -> tamegrad.ArrayGuard:
    guard = tamegrad.ArrayGuard()
    for step in range(30):
        guard.observe(step, 1.0 if step < 20 else math.nan, {"w": numpy.ones(4)})
    return guard


def before_the_first_step(rate: float) -> dict:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    result = tamegrad.preflight(model, lambda m, b: loss_of(m, *b), next(batches(1)), optimizer)
    return result.to_dict()["diagnosis"]


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda: train("observe").guard.diagnosis().to_dict(), "healthy"),
        (lambda: train("observe", at_step=broken_batch).guard.diagnosis().to_dict(), "exploded"),
        (lambda: train("protect", at_step=broken_batch).guard.diagnosis().to_dict(), "recovered"),
        (lambda: of_arrays().diagnosis().to_dict(), "exploded"),
        (lambda: before_the_first_step(0.01), "too-early"),
        (lambda: before_the_first_step(1e3), "too-early"),
    ],
    ids=["healthy", "exploded", "protected", "arrays", "preflight", "preflight with a high rate"],
)
def test_every_diagnosis_follows_the_schema(make, verdict):
    report = make()
    jsonschema.validate(report, SCHEMA)
    assert report["verdict"] == verdict


def test_a_finding_holds_numbers_and_its_text_says_the_same():
    guard = of_arrays()
    for findings in (guard.diagnosis().findings, guard.observe(30, math.nan, {"w": numpy.ones(4)})):
        for measure in findings[0].evidence:
            assert isinstance(measure, tamegrad.Measure)
            assert measure.place in ("loss", "run")
            assert str(measure) == measure.text
    run = train("observe", at_step=broken_batch)
    (first, *_) = run.guard.findings()
    assert first == run.guard.diagnosis().findings[0]
    assert {measure.quantity for measure in first.evidence} <= set(
        SCHEMA["$defs"]["quantity"]["enum"]
    )
