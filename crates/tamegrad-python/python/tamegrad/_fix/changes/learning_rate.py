"""A lower learning rate."""

from __future__ import annotations

from ..change import Case, Change, own
from ..numbers import number, two_digits

KIND = "learning-rate"
FAMILY = "rate"
KNOB = "rate"
KIND_LABEL = "lower-learning-rate"

_APART = 0.1
"""A lower factor is tried as well, in case that of the diagnosis is not low enough."""
_MILDER = 3.0


def turn(change, given):
    """The rate times the factor."""
    return two_digits(given * change["factor"])


def propose(case: Case) -> list[Change]:
    """A tenth of the proposed rate as well."""
    first = case.proposes(KIND)
    if first is None or not first["factor"] > 0.0:
        return []
    return [lowered(first, two_digits(_APART * first["factor"]))]


def milder(change: Change) -> Change | None:
    """A higher rate, if that is still below the given one."""
    factor = two_digits(_MILDER * change["factor"])
    return lowered(change, factor) if 0.0 < factor < 1.0 else None


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
        f"{KIND_LABEL}-{number(factor)}",
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
