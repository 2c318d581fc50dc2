"""Rows of the batches that are unlike the others are left out."""

from __future__ import annotations

from typing import Any

import torch

from ..batches import map_tensors, rows_of
from ..change import CannotApply

KIND = "filter-rows"
FAMILY = "data"

_TIMES_USUAL = 30.0
"""A row is left out if its largest magnitude is this many times the median of the rows before."""


def apply(change, trial, model, optimizers) -> None:
    """Filters what ``trial.batches`` gives."""
    if not trial.uses("batches"):
        raise CannotApply("take the batches from trial.batches(loader)")
    trial.on_batch(Filter())


class Filter:
    """Leaves out rows with NaN or Inf and rows of unusual size; ``None`` where no row is left."""

    def __init__(self) -> None:
        self._usual: dict[int, float] = {}

    def __call__(self, batch: Any) -> Any:
        rows = rows_of(batch)
        if rows is None:
            return batch
        keep = torch.ones(rows, dtype=torch.bool)
        place = 0

        def look(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal place, keep
            place += 1
            if tensor.is_floating_point() and tensor.dim() > 0 and len(tensor) == rows:
                keep &= self._fits(place, tensor.detach().reshape(rows, -1))
            return tensor

        map_tensors(look, batch)
        if bool(keep.all()):
            return batch
        if not bool(keep.any()):
            return None

        def chosen(tensor: torch.Tensor) -> torch.Tensor:
            is_by_row = tensor.dim() > 0 and len(tensor) == rows
            return tensor[keep.to(tensor.device)] if is_by_row else tensor

        return map_tensors(chosen, batch)

    def _fits(self, place: int, flat: torch.Tensor) -> torch.Tensor:
        finite = torch.isfinite(flat).all(1)
        size = flat.abs().amax(1)
        good = size[finite]
        if len(good):
            usual = self._usual.setdefault(place, float(good.median()))
            if usual > 0.0:
                finite &= size <= _TIMES_USUAL * usual
        return finite.cpu()
