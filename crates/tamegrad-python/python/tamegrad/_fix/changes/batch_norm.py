"""Batch norm before or after the activations."""

from __future__ import annotations

from ..._remedies import add_norm
from ..change import CannotApply

KIND = "batch-norm"
FAMILY = "normalise"
KNOB = "norm"
NAME = "batch"


def turn(change, given):
    """The name of the norm."""
    return NAME


def apply(change, trial, model, optimizers) -> None:
    """Adds norms to the model, and their parameters to the optimizer."""
    known = {id(parameter) for parameter in model.parameters()}
    try:
        add_norm(model, NAME, change["place"])
    except ValueError as error:
        raise CannotApply(str(error)) from None
    trial.adopt([p for p in model.parameters() if id(p) not in known])
