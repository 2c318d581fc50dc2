"""The gradients are cleared after each step."""

from __future__ import annotations

KIND = "clear-gradients"
FAMILY = "loop"


def apply(change, trial, model, optimizers) -> None:
    """Clears those of the optimizer that has stepped."""
    trial.after_step(lambda optimizer: optimizer.zero_grad())
