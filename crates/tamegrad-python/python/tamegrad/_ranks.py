"""Several processes: statistics over shards, and one decision for all ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from ._core import Scan, Updates
from ._device import Numbers
from ._probes import Inputs


class Ranks:
    """The ranks that train one model together; one alone when there are none."""

    def __init__(self, model: nn.Module, parameters: list[torch.Tensor], group: Any) -> None:
        self._group = group
        self.shards_parameters = any(hasattr(p, "_local_tensor") for p in parameters)
        together = (
            group is not None
            or self.shards_parameters
            or isinstance(model, nn.parallel.DistributedDataParallel)
        )
        self.size = 1
        if together and dist.is_available() and dist.is_initialized():
            self.size = dist.get_world_size(group)
        self._sharded = [index for index, p in enumerate(parameters) if _is_sharded(p)]
        self._device = parameters[0].device if parameters else torch.device("cpu")

    def combine(self, scan: Scan) -> None:
        """Makes the statistics of shards those of the whole tensors: sums of counts and squares,
        the maximum of magnitudes."""
        if self.size == 1 or not self._sharded:
            return
        rows = [scan.get(index) for index in self._sharded]
        known = [row if row is not None else (0, 0, 0, 0, 0.0, 0.0, 0.0) for row in rows]
        # Squares of f64 norms stay in range when they are divided by the largest of all ranks.
        largest = torch.tensor([row[5] for row in known], dtype=torch.float64)
        largest = self._reduce(largest, dist.ReduceOp.MAX)
        unit = torch.where(largest > 0, largest, torch.ones_like(largest))
        sums = torch.tensor(
            [
                [row[0], row[1], row[2], row[3], 0.0, row[6] * (row[0] - row[1] - row[2])]
                for row in known
            ],
            dtype=torch.float64,
        )
        norms = torch.tensor([row[4] for row in known], dtype=torch.float64)
        sums[:, 4] = (norms / unit) ** 2
        sums = self._reduce(sums, dist.ReduceOp.SUM)
        for place, index in enumerate(self._sharded):
            length, nans, infs, zeros = (int(count) for count in sums[place, :4].tolist())
            finite = max(length - nans - infs, 1)
            norm = float(sums[place, 4].sqrt() * unit[place])
            mean = float(sums[place, 5]) / finite
            numbers = (length, nans, infs, zeros, norm, float(largest[place]), mean)
            scan.put(index, numbers if length else None)

    def combine_updates(self, updates: Updates) -> None:
        """Makes the updates of shards those of the whole tensors."""
        if self.size == 1 or not self._sharded:
            return
        rows = [updates.get(index) or (0.0, 0.0, 0, 0) for index in self._sharded]
        sums = torch.tensor([[r[0] ** 2, r[1] ** 2, r[2], r[3]] for r in rows], dtype=torch.float64)
        sums = self._reduce(sums, dist.ReduceOp.SUM).tolist()
        for index, (change, weight, length, nonfinite) in zip(self._sharded, sums, strict=True):
            updates.put(index, change**0.5, weight**0.5, int(length), int(nonfinite))

    def agree(self, loss: float | None, nonfinite: int) -> tuple[float | None, int]:
        """The mean loss of all ranks that have one, and the most non-finite elements of any."""
        if self.size == 1:
            return loss, nonfinite
        known = loss is not None
        sums = torch.tensor([loss if known else 0.0, float(known)], dtype=torch.float64)
        sums = self._reduce(sums, dist.ReduceOp.SUM)
        most = self._reduce(
            torch.tensor([float(nonfinite)], dtype=torch.float64), dist.ReduceOp.MAX
        )
        mean = float(sums[0] / sums[1]) if float(sums[1]) else None
        return mean, int(most[0])

    def culprits(
        self, loss: float | None, inputs: torch.Tensor | Numbers | None, seen: Inputs | None
    ) -> list[int]:
        """The ranks whose loss, inputs or gradient at the model's output stand out: not finite
        where others are, or more than ten times their median. Every rank must call it."""
        if self.size == 1:
            return []
        gradient = None if seen is None else seen.output_gradient
        own = [abs(loss) if loss is not None else 0.0, _largest(inputs), _largest(gradient)]
        rows = [torch.zeros(3, dtype=torch.float64, device=self._device) for _ in range(self.size)]
        mine = torch.tensor(own, dtype=torch.float64, device=self._device)
        dist.all_gather(rows, mine, group=self._group)
        table = torch.stack(rows).to("cpu")
        found: set[int] = set()
        for column in table.t():
            finite = torch.isfinite(column)
            if finite.any() and not finite.all():
                found.update(torch.nonzero(~finite).flatten().tolist())
            elif finite.all():
                usual = column.median()
                found.update(
                    torch.nonzero(column > 10.0 * usual.clamp(min=1e-30)).flatten().tolist()
                )
        return sorted(found) if len(found) < self.size else []

    def _reduce(self, values: torch.Tensor, operation: Any) -> torch.Tensor:
        moved = values.to(self._device)
        dist.all_reduce(moved, operation, group=self._group)
        return moved.to("cpu")


def _largest(tensor: torch.Tensor | Numbers | None) -> float:
    if isinstance(tensor, tuple):
        return math.nan if tensor[1] else math.inf if tensor[2] else tensor[5]
    if tensor is None or not tensor.numel():
        return 0.0
    return float(tensor.detach().abs().max())


def _is_sharded(parameter: torch.Tensor) -> bool:
    placements = getattr(parameter, "placements", ())
    return any(placement.is_shard() for placement in placements)
