"""A larger eps in the optimizer."""

from __future__ import annotations

from ..change import CannotApply

KIND = "optimizer-eps"
FAMILY = "optimizer"
KNOB = "eps"


def turn(change, given):
    """The eps of the change."""
    return max(change["eps"], given)


def apply(change, trial, model, optimizers) -> None:
    """Sets it in every group that has one."""
    groups = [group for o in optimizers for group in o.param_groups if "eps" in group]
    if not groups:
        raise CannotApply("the optimizer has no eps")
    for group in groups:
        group["eps"] = max(change["eps"], group["eps"])
