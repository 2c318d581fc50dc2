"""Batch norm before or after the activations."""

from __future__ import annotations

from ..._remedies import add_norm
from ..change import CannotApply, Case, Change, own

KIND = "batch-norm"
FAMILY = "normalise"
KNOB = "norm"
NAME = "batch"

_LAYERS = 3
"""Layers from which a model without norms is deep enough for them."""


def propose(case: Case) -> list[Change]:
    """For a model without norms, where the diagnosis does not see that they are missing."""
    if case.proposes(KIND) is not None or not lacks_norms(case):
        return []
    text, code = "batch norm before the activation", 'tamegrad.add_norm(model, "batch", "before")'
    code += "  # before the optimizer is made"
    treats = case.is_treated_by(KIND)
    return [own(KIND, f"{KIND}-before", text, code, treats_cause=treats, place="before")]


def lacks_norms(case: Case) -> bool:
    """Whether the model has several layers, no norm, and is not recurrent."""
    return case.norms == 0 and case.layers >= _LAYERS and not case.is_recurrent


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
