"""Decoupled weight decay."""

from __future__ import annotations

import torch

from ..._optimizers import parameters_in
from ..change import Case, Change, own

KIND = "weight-decay"
FAMILY = "regularise"
KNOB = "weight_decay"


def turn(change, given):
    """The decay of the change."""
    return max(change["rate"], given)


def propose(case: Case) -> list[Change]:
    """Where a decay is negative, and so makes weights grow: none in its place."""
    negative = [float(g["weight_decay"]) for g in case.groups if (g.get("weight_decay") or 0.0) < 0]
    if not negative:
        return []
    code = 'for group in optimizer.param_groups: group["weight_decay"] = 0.0'
    text = f"no weight decay instead of a negative one ({min(negative)!r})"
    return [own(KIND, f"no-{KIND}", text, code, treats_cause=True, rate=0.0)]


def apply(change, trial, model, optimizers) -> None:
    """Decays the weight matrices by ``rate * lr`` in each step, and takes away a negative decay of the
    optimizer's own."""
    rate = change["rate"]
    for group in (g for o in optimizers for g in o.param_groups):
        group["weight_decay"] = max(group.get("weight_decay") or 0.0, 0.0)

    @torch.no_grad()
    def decay(optimizer) -> None:
        own = max((g.get("weight_decay") or 0.0 for g in optimizer.param_groups), default=0.0)
        lr = max(float(group["lr"]) for group in optimizer.param_groups)
        for parameter in parameters_in(optimizer):
            if parameter.dim() >= 2 and own < rate:
                parameter.mul_(1.0 - lr * (rate - own))

    trial.after_step(decay)
