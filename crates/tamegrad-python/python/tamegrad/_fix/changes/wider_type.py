"""A wider number type than 16 bits."""

from __future__ import annotations

from typing import Any

import torch

from ..change import CannotApply

KIND = "wider-type"
FAMILY = "type"
KNOB = "dtype"

_NARROW = (torch.float16, torch.bfloat16)


def turn(change, given):
    """float32 for a type of 16 bits."""
    return torch.float32 if given in _NARROW else given


def apply(change, trial, model, optimizers) -> None:
    """Casts a narrow model, and what it is called with, to float32."""
    if not any(parameter.dtype in _NARROW for parameter in model.parameters()):
        raise CannotApply("take the number type from trial.dtype(torch.float16)")
    model.float()
    model.register_forward_pre_hook(_widened)


def _widened(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    def wide(value: Any) -> Any:
        is_narrow = isinstance(value, torch.Tensor) and value.dtype in _NARROW
        return value.float() if is_narrow else value

    return tuple(map(wide, inputs))
