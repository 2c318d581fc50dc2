"""The weights drawn anew by a rule that fits the activation, or by torch's own."""

from __future__ import annotations

import torch

from ..._remedies import reinitialize_
from ..change import CannotApply, Case, Change, own

KIND = "reinitialise"
FAMILY = "initialise"


def propose(case: Case) -> list[Change]:
    """torch's own rules, and the proposed ones in all layers where the diagnosis has one in mind."""
    first = case.proposes(KIND)
    if first is None:
        return []
    by_torch = own(
        KIND,
        "reinitialise-torch",
        "torch's own initialisation in all layers",
        'tamegrad.reinitialize_(model, scheme="torch")',
        treats_cause=first.treats_cause,
        scheme="torch",
        layer=None,
    )
    everywhere = own(
        KIND,
        f"{first.label}-all",
        f"{first['scheme']} initialisation in all layers",
        f'tamegrad.reinitialize_(model, scheme="{first["scheme"]}")',
        treats_cause=first.treats_cause,
        scheme=first["scheme"],
        layer=None,
    )
    return [by_torch] if first["layer"] is None else [everywhere, by_torch]


def apply(change, trial, model, optimizers) -> None:
    """Draws in place, so that the optimizer holds the same parameters."""
    layer = change["layer"]
    part = model
    if layer is not None:
        path = layer.split("@")[0]
        try:
            part = model.get_submodule(path)
        except AttributeError:
            raise CannotApply(f"the model has no layer {path}") from None
    state = torch.get_rng_state()
    torch.manual_seed(trial.seed)
    try:
        reinitialize_(part, scheme=change["scheme"])
    except ValueError as error:
        raise CannotApply(str(error)) from None
    finally:
        torch.set_rng_state(state)
