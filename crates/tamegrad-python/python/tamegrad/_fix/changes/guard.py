"""The guard in protect mode."""

from __future__ import annotations

KIND = "guard"
FAMILY = "steps"


def apply(change, trial, model, optimizers) -> None:
    """Has the trial watched in protect mode."""
    trial.mode = "protect"
