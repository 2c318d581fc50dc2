"""An activation that grows no faster than its input."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..._remedies import replace_activations
from ..change import CannotApply

KIND = "activation"
FAMILY = "activation"
KNOB = "activation"


def turn(change, given: Any) -> Any:
    """relu in the form of what was given: a name, a class, a module or a function."""
    if isinstance(given, str):
        return change["name"]
    if isinstance(given, type):
        return nn.ReLU
    return nn.ReLU() if isinstance(given, nn.Module) else torch.relu


def apply(change, trial, model, optimizers) -> None:
    """Replaces the module of the activation, or all that are none of torch's own."""
    layer = change["layer"]
    try:
        replace_activations(model, None if layer is None else layer.split("@")[0])
    except ValueError as error:
        raise CannotApply(f"{error}; take it from trial.activation(...)") from None
