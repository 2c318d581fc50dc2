"""Every element of the gradients clamped."""

from __future__ import annotations

from torch import nn

from ..._optimizers import parameters_in

KIND = "clip-value"
FAMILY = "clip"


def apply(change, trial, model, optimizers) -> None:
    """Clips by the guard, which knows then that the gradients are bounded."""

    def clip(optimizer) -> None:
        if len(optimizers) == 1:
            trial.guard.clip_value_(change["limit"])
        else:
            nn.utils.clip_grad_value_(parameters_in(optimizer), change["limit"])

    trial.before_step(clip)
