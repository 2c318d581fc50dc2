"""Decoupled weight decay."""

from __future__ import annotations

import torch

from ..change import Case, Change, own
from ..hooks import parameters_of

KIND = "weight-decay"
FAMILY = "regularise"
KNOB = "weight_decay"


def turn(change, given):
    """The decay of the change."""
    return change["rate"] if given < 0.0 else max(change["rate"], given)


def propose(case: Case) -> list[Change]:
    """Where a decay is negative, and so makes weights grow: the same with the other sign."""
    negative = [float(g["weight_decay"]) for g in case.groups if (g.get("weight_decay") or 0.0) < 0]
    if not negative:
        return []
    rate = -min(negative)
    code = f'for group in optimizer.param_groups: group["weight_decay"] = {rate!r}'
    text = f"weight decay of {rate!r} in place of {-rate!r}"
    return [own(KIND, f"{KIND}-sign", text, code, treats_cause=True, rate=rate, is_sign=True)]


def apply(change, trial, model, optimizers) -> None:
    """Decays the weight matrices by ``rate * lr`` before each step, or mends the sign of the
    optimizer's own decay."""
    rate = change["rate"]
    if change.parameters.get("is_sign"):
        for group in (g for o in optimizers for g in o.param_groups):
            group["weight_decay"] = abs(group.get("weight_decay") or 0.0)
        return

    @torch.no_grad()
    def decay(optimizer) -> None:
        own = max((g.get("weight_decay") or 0.0 for g in optimizer.param_groups), default=0.0)
        lr = max(float(group["lr"]) for group in optimizer.param_groups)
        for parameter in parameters_of(optimizer):
            if parameter.dim() >= 2 and own < rate:
                parameter.mul_(1.0 - lr * (rate - own))

    trial.after_step(decay)
