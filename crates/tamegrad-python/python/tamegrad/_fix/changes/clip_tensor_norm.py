"""Each tensor's gradient clipped by its norm."""

from __future__ import annotations

from torch import nn

from ..._optimizers import parameters_in

KIND = "clip-tensor-norm"
FAMILY = "clip"


def apply(change, trial, model, optimizers) -> None:
    """Clips one tensor after the other."""

    def clip(optimizer) -> None:
        for parameter in parameters_in(optimizer):
            nn.utils.clip_grad_norm_(parameter, change["max_norm"])

    trial.before_step(clip)
