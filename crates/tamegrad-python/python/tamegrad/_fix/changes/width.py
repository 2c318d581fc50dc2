"""Narrower layers."""

from __future__ import annotations

from ..change import CannotApply, Case, Change, own

KIND = "width"
FAMILY = "structure"
KNOB = NEEDS = "width"


def propose(case: Case) -> list[Change]:
    """Half of what the objective has."""
    given = case.knobs.get(KNOB)
    if not isinstance(given, int) or given < 2:
        return []
    return [
        own(KIND, "half-width", f"width {given // 2}", f"width = {given // 2}", width=given // 2)
    ]


def turn(change, given):
    """The width of the change."""
    return min(change["width"], given)


def apply(change, trial, model, optimizers) -> None:
    """Needs its knob."""
    raise CannotApply("take the width of the layers from trial.width(...)")
