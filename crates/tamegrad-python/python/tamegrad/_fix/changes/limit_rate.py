"""A limit to the learning rate: that of before it rose, or that of the other parameter groups."""

from __future__ import annotations

from ..change import Case, Change, own
from ..numbers import number, two_digits

KIND = "limit-rate"
FAMILY = "rate"

_RISE = 1.3
"""The rate has risen if it is this many times that of half-way to the onset."""
_SPREAD = 30.0
"""The rate of a group is out of line if it is this many times the smallest."""


def propose(case: Case) -> list[Change]:
    """For a rate that rose before the onset, and for one group whose rate is far above the others'."""
    limits = []
    if case.rates is not None and case.rates[1] > _RISE * case.rates[0] > 0.0:
        limits.append(two_digits(case.rates[0]))
    rates = [float(group["lr"]) for group in case.groups if group.get("lr")]
    if rates and max(rates) > _SPREAD * min(rates) > 0.0:
        limits.append(two_digits(min(rates)))
    return [_limited(limit) for limit in dict.fromkeys(limits)]


def _limited(limit: float) -> Change:
    text = f"limit the learning rate to {number(limit)}"
    code = f'for group in optimizer.param_groups: group["lr"] = min(group["lr"], {limit!r})'
    code += "  # before optimizer.step()"
    return own(KIND, KIND, text, code, treats_cause=True, limit=limit)


def apply(change, trial, model, optimizers) -> None:
    """Limits the rate of every group for the time of a step, so that no scheduler sees it."""
    limit = change["limit"]
    trial.on_rate(lambda rate, step: min(rate, limit))
