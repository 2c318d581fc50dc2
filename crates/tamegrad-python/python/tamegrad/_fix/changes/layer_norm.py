"""Layer norm before or after the activations: as batch norm, and also for recurrent nets and small
batches."""

from __future__ import annotations

from ..._remedies import add_norm
from ..change import CannotApply, Case, Change, own

KIND = "layer-norm"
FAMILY = "normalise"
KNOB = "norm"


def propose(case: Case) -> list[Change]:
    """Where batch norm is proposed."""
    batch_norm = case.proposes("batch-norm")
    if batch_norm is None:
        return []
    place = batch_norm["place"]
    return [
        own(
            KIND,
            f"{KIND}-{place}",
            f"layer norm {place} the activation",
            f'tamegrad.add_norm(model, "layer", "{place}")  # before the optimizer is made',
            treats_cause=batch_norm.treats_cause,
            place=place,
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
