"""Skip connections around layers that keep their width (He et al. 2016)."""

from __future__ import annotations

from ..._remedies import add_residual
from ..change import CannotApply, Case, Change, own

KIND = "residual"
FAMILY = "structure"

_DEEP = 8
"""Layers from which the lack of skip connections shows."""


def propose(case: Case) -> list[Change]:
    """For deep networks."""
    depth = case.proposes("depth")
    if depth is None or depth["layers"] < _DEEP:
        return []
    text = "skip connections around layers that keep their width"
    code = "tamegrad.add_residual(model)"
    return [own(KIND, KIND, text, code, treats_cause=depth.treats_cause)]


def apply(change, trial, model, optimizers) -> None:
    """Adds its input to the output of each such layer."""
    try:
        add_residual(model)
    except ValueError as error:
        raise CannotApply(str(error)) from None
