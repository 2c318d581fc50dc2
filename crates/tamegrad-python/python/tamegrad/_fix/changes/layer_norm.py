"""Layer norm before or after the activations: as batch norm, and also for recurrent nets and small
batches."""

from __future__ import annotations

from ..._remedies import add_norm
from ..change import CannotApply, Case, Change, own
from .batch_norm import lacks_norms

KIND = "layer-norm"
FAMILY = "normalise"
KNOB = "norm"


def propose(case: Case) -> list[Change]:
    """For a model without norms."""
    if case.proposes("batch-norm") is None and not lacks_norms(case):
        return []
    return [
        own(
            KIND,
            f"{KIND}-before",
            "layer norm before the activation",
            'tamegrad.add_norm(model, "layer", "before")  # before the optimizer is made',
            treats_cause=case.is_treated_by("batch-norm"),
            place="before",
        )
    ]


def turn(change, given):
    """The name of the norm."""
    return "layer"


def apply(change, trial, model, optimizers) -> None:
    """Adds norms to the model, and their parameters to the optimizer."""
    known = {id(parameter) for parameter in model.parameters()}
    try:
        add_norm(model, "layer", change["place"])
    except ValueError as error:
        raise CannotApply(str(error)) from None
    trial.adopt([p for p in model.parameters() if id(p) not in known])
