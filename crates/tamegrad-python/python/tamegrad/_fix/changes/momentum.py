"""A lower momentum."""

from __future__ import annotations

from ..change import CannotApply, Case, Change, own

KIND = "momentum"
FAMILY = "optimizer"
KNOB = "momentum"

_HIGH = 0.95
_USUAL = 0.9


def propose(case: Case) -> list[Change]:
    """Where SGD's momentum or Adam's first beta is above the usual."""
    if not any(_momentum(group) > _HIGH for group in case.groups):
        return []
    is_beta = any("betas" in group for group in case.groups)
    name, value = ("betas", f"({_USUAL}, 0.999)") if is_beta else ("momentum", f"{_USUAL}")
    code = f'for group in optimizer.param_groups: group["{name}"] = {value}'
    return [own(KIND, KIND, f"momentum of {_USUAL}", code, treats_cause=True, momentum=_USUAL)]


def turn(change, given):
    """The lower momentum."""
    return min(change["momentum"], given)


def apply(change, trial, model, optimizers) -> None:
    """Sets it in every group whose momentum is higher."""
    high = [g for o in optimizers for g in o.param_groups if _momentum(g) > change["momentum"]]
    if not high:
        raise CannotApply("the optimizer's momentum is no higher than usual")
    for group in high:
        if "betas" in group:
            group["betas"] = (change["momentum"], *group["betas"][1:])
        else:
            group["momentum"] = change["momentum"]


def _momentum(group) -> float:
    betas = group.get("betas")
    return float(betas[0]) if betas else float(group.get("momentum") or 0.0)
