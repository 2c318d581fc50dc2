"""The whole gradient clipped by its norm."""

from __future__ import annotations

from torch import nn

from ..._optimizers import parameters_in
from ..numbers import two_digits

KIND = "clip-global-norm"
FAMILY = "clip"
KNOB = "clip_norm"


def turn(change, given):
    """The limit of the change, or a tenth of the objective's own if that is lower."""
    return min(change["max_norm"], two_digits(given / 10.0))


def apply(change, trial, model, optimizers) -> None:
    """Clips by the guard, which reads the gradients anyway."""

    def clip(optimizer) -> None:
        if len(optimizers) == 1:
            trial.guard.clip_(change["max_norm"])
        else:
            nn.utils.clip_grad_norm_(parameters_in(optimizer), change["max_norm"])

    trial.before_step(clip)
