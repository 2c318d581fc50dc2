"""Batches as loaders give them: tensors in tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

_TARGETS = ("labels", "label", "targets", "target", "y")
"""Names of the targets in a batch that is a dictionary."""


def map_tensors(function: Callable[[torch.Tensor], torch.Tensor], batch: Any) -> Any:
    """The batch with every tensor replaced."""
    if isinstance(batch, torch.Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {name: map_tensors(function, part) for name, part in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_tensors(function, part) for part in batch))
    if isinstance(batch, (list, tuple)):
        return type(batch)(map_tensors(function, part) for part in batch)
    return batch


def rows_of(batch: Any) -> int | None:
    """The length of the first dimension that most tensors of the batch have."""
    lengths: list[int] = []

    def look(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() > 0:
            lengths.append(len(tensor))
        return tensor

    map_tensors(look, batch)
    return max(lengths, key=lengths.count) if lengths else None


def target_of(batch: Any) -> torch.Tensor | None:
    """The regression target: the last part of a batch, or that of a usual name, if it is a
    floating-point tensor."""
    found: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found.append(tensor)
        return tensor

    map_target(keep, batch)
    return found[0] if found else None


def map_target(function: Callable[[torch.Tensor], torch.Tensor], batch: Any) -> Any:
    """The batch with its regression target replaced; the same batch if it has none."""
    if isinstance(batch, Mapping):
        name = next((name for name in _TARGETS if _is_float(batch.get(name))), None)
        return batch if name is None else {**batch, name: function(batch[name])}
    if isinstance(batch, (list, tuple)) and len(batch) >= 2 and _is_float(batch[-1]):
        return type(batch)([*batch[:-1], function(batch[-1])])
    return batch


def _is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
