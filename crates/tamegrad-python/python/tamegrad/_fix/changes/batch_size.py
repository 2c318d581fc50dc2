"""Smaller or larger batches."""

from __future__ import annotations

from ..change import CannotApply, Case, Change, own

KIND = "batch-size"
FAMILY = "batch"
KNOB = NEEDS = "batch_size"


def propose(case: Case) -> list[Change]:
    """Four times as many samples, for gradients with less noise."""
    given = case.knobs.get(KNOB)
    if not isinstance(given, int):
        return []
    samples = 4 * given
    code = f"loader = DataLoader(data, batch_size={samples})"
    return [own(KIND, "larger-batch", f"batches of {samples} samples", code, samples=samples)]


def turn(change, given):
    """The samples of the change."""
    return change["samples"]


def apply(change, trial, model, optimizers) -> None:
    """Needs its knob."""
    raise CannotApply("take the batch size from trial.batch_size(...)")
