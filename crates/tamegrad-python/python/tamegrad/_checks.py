"""What a caller of the guard may hand in: wrong arguments are told at the call."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch


def number(name: str, value: Any) -> None:
    """Raises ``TypeError`` for what is no number, and ``ValueError`` for a tensor of several or of none,
    and for one that no float holds; ``None`` is none that was given."""
    if value is None:
        return
    if isinstance(value, Real):
        try:
            float(value)
        except OverflowError:
            raise ValueError(f"{name}: got a number that is too large for a float") from None
        return
    if isinstance(value, torch.Tensor):
        if value.is_meta:
            raise ValueError(f"{name}: got a tensor on the meta device, which holds no number")
        if value.numel() != 1:
            raise ValueError(
                f"{name}: got a tensor of shape {tuple(value.shape)}, want one number; reduce it "
                f"first, for example with {name}.mean()"
            )
        return
    size = getattr(value, "size", None)
    if size == 1 and hasattr(value, "dtype"):
        return
    raise TypeError(f"{name}: got {type(value).__name__}, want a number or a tensor of one element")


def tensor(name: str, value: Any) -> None:
    """Raises ``TypeError`` for what is no tensor; ``None`` is none that was given."""
    if value is not None and not isinstance(value, torch.Tensor):
        raise TypeError(f"{name}: got {type(value).__name__}, want a torch.Tensor")
