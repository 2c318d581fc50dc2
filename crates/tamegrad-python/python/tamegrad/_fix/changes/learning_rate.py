"""A lower learning rate."""

from __future__ import annotations

from ..change import Case, Change, own
from ..numbers import number, two_digits

KIND = "learning-rate"
FAMILY = "rate"
KNOB = "rate"

_APART = 0.3
"""Another factor is tried beside that of the diagnosis."""


def turn(change, given):
    """The rate times the factor."""
    return two_digits(given * change["factor"])


def propose(case: Case) -> list[Change]:
    """A third of the proposed rate as well: one factor seldom fits."""
    first = case.proposes(KIND)
    if first is None or not first["factor"] > 0.0:
        return []
    return [lowered(first, two_digits(_APART * first["factor"]))]


def lowered(first: Change, factor: float) -> Change:
    """The same change with another factor."""
    given = first["from"]
    to = (
        f"to {number(two_digits(factor * given))}" if given else f"to {number(factor)} of its value"
    )
    value = repr(two_digits(factor * given)) if given else f'{factor!r} * group["lr"]'
    code = f'for group in optimizer.param_groups: group["lr"] = {value}'
    return own(
        KIND,
        f"{first.label}-{number(factor)}",
        f"reduce the learning rate {to}",
        code,
        treats_cause=first.treats_cause,
        factor=factor,
        **{"from": given},
    )


def apply(change, trial, model, optimizers) -> None:
    """Multiplies the rate for the time of a step, whatever a scheduler sets it to."""
    factor = change["factor"]
    trial.on_rate(lambda rate, step: rate * factor)
