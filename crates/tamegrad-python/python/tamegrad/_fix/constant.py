"""The loss of the best constant answer, which a training has to get below before it has learned anything."""

from __future__ import annotations

import math
from typing import Any

import torch

from .batches import target_of

_BATCHES = 64
"""Batches from which it is estimated."""
_CLASSES_MAX = 65_536
_MEAN, _SUM = 1, 2
"""torch's numbers for the reductions of a loss."""


class ConstantAnswer:
    """Takes in targets and losses: the entropy of the labels for a cross-entropy, the variance of the
    targets for a squared error; other losses have no known constant."""

    def __init__(self) -> None:
        self._counts: torch.Tensor | None = None
        self._moments = [0.0, 0.0, 0.0]
        self._left = _BATCHES
        self._kind: tuple[str, int] | None = None

    def see_batch(self, batch: Any) -> None:
        """Takes in the targets of a batch."""
        if self._left == 0:
            return
        self._left -= 1
        target = target_of(batch)
        if target is not None:
            values = target.detach().double()
            values = values[torch.isfinite(values)]
            for place, power in enumerate((values**0, values, values.square())):
                self._moments[place] += float(power.sum())
            return
        labels = batch[-1] if isinstance(batch, (list, tuple)) and len(batch) >= 2 else None
        if labels is None and isinstance(batch, dict):
            labels = batch.get("labels", batch.get("label"))
        if (
            not isinstance(labels, torch.Tensor)
            or labels.is_floating_point()
            or labels.is_complex()
        ):
            return
        flat = labels.detach().flatten().cpu().long()
        flat = flat[(flat >= 0) & (flat < _CLASSES_MAX)]
        counts = torch.bincount(flat, minlength=0 if self._counts is None else len(self._counts))
        if self._counts is not None:
            counts[: len(self._counts)] += self._counts
        self._counts = counts

    def see_loss(self, loss: Any) -> None:
        """Takes in the kind of a loss, from the operation that made it."""
        made_by = getattr(loss, "grad_fn", None)
        if self._kind is not None or made_by is None:
            return
        name = made_by.name()
        reduction = getattr(made_by, "_saved_reduction", None)
        if name.startswith(("NllLoss", "MseLoss")) and reduction in (_MEAN, _SUM):
            self._kind = (name[:3], reduction)

    def loss(self, rows: int) -> float | None:
        """The loss of the best constant answer for batches of so many rows; ``None`` where it is not
        known."""
        if self._kind is None:
            return None
        kind, reduction = self._kind
        count, total, squares = self._moments
        if kind == "Nll" and self._counts is not None and int(self._counts.sum()) > 0:
            parts = self._counts[self._counts > 0].double() / self._counts.sum()
            constant = -float((parts * parts.log()).sum())
        elif kind == "Mse" and count > 1.0:
            constant = max(squares / count - (total / count) ** 2, 0.0)
        else:
            return None
        constant *= rows if reduction == _SUM else 1
        return constant if math.isfinite(constant) else None
