"""Fewer layers."""

from __future__ import annotations

from ..change import CannotApply, Case, Change, own

KIND = "depth"
FAMILY = "structure"
KNOB = NEEDS = "depth"


def propose(case: Case) -> list[Change]:
    """Half of what the objective has, under the name of the proposal that counts layers."""
    given, proposed = case.knobs.get(KNOB), case.proposes(KIND)
    if not isinstance(given, int) or given < 2 or proposed is None:
        return []
    text, code = f"depth {given // 2}", f"depth = {given // 2}"
    cause = proposed.treats_cause
    return [own(KIND, "half-depth", text, code, treats_cause=cause, layers=given // 2)]


def turn(change, given):
    """The layers of the change."""
    return min(change["layers"], given)


def apply(change, trial, model, optimizers) -> None:
    """Needs its knob."""
    raise CannotApply("take the number of layers from trial.depth(...)")
