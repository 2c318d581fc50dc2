"""Several processes: statistics over shards, and one decision for all ranks."""

from __future__ import annotations

import contextlib
import math
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from ._calls import Call
from ._core import RANK_RATIO, Scan, Trace, Updates
from ._numbers import Numbers, merged

_PATIENCE = timedelta(minutes=2)
"""How long a rank waits for the others. They come from one backward pass, which has kept them in step;
who does not come has died."""

_IS_HERE, _HAS_FAILED, _HAS_CLOSED = 0.0, 1.0, 2.0
"""What each rank says of itself first whenever they exchange something."""

_AT_ONCE = 31
"""Numbers that fit in the same message."""


class OthersStopped(RuntimeError):
    """Another rank no longer watches, so that this one can't either."""


class Ranks:
    """The ranks that train one model together; one alone when there are none.

    They exchange some numbers in a group of their own, so that nothing of theirs is taken for a message
    of the loop. A rank that stops watching says so in the place of its next message; the others then
    stop watching too, and the training goes on.
    """

    def __init__(self, model: nn.Module, parameters: list[torch.Tensor], group: Any) -> None:
        self.shards_parameters = any(hasattr(p, "_local_tensor") for p in parameters)
        together = (
            group is not None
            or self.shards_parameters
            or isinstance(model, nn.parallel.DistributedDataParallel)
        )
        self.size = 1
        is_one_of_several = dist.is_available() and dist.is_initialized()
        if together and is_one_of_several:
            self.size = dist.get_world_size(group)
        self.may_average_by_hand = not together and is_one_of_several and dist.get_world_size() > 1
        """Whether there are other ranks that may train the same model, which nothing here shows."""
        device = parameters[0].device if parameters else torch.device("cpu")
        self._has_own_group = self.size > 1 and dist.is_gloo_available()
        if self._has_own_group:
            members = dist.get_process_group_ranks(group)
            device = torch.device("cpu")
            group = dist.new_group(
                members, backend="gloo", timeout=_PATIENCE, use_local_synchronization=True
            )
        self._group = group
        self._device = device
        self._farewell: Any = None
        self.know(parameters)

    def leave(self, has_failed: bool) -> None:
        """Tells the others that this rank stops watching; does not wait for them."""
        if self._has_own_group and self._farewell is None and dist.is_initialized():
            mine = self._message(_HAS_FAILED if has_failed else _HAS_CLOSED, [])
            rows = [torch.empty_like(mine) for _ in range(self.size)]
            # The loop may have destroyed the group, and made another.
            with contextlib.suppress(RuntimeError, ValueError):
                self._farewell = dist.all_gather(rows, mine, group=self._group, async_op=True)

    def know(self, parameters: list[torch.Tensor]) -> None:
        """Notes which parameters are sharded."""
        self._sharded = [index for index, p in enumerate(parameters) if _is_sharded(p)]

    def combine(self, scan: Scan) -> None:
        """Makes the statistics of shards those of the whole tensors: sums of counts and squares,
        the maximum of magnitudes."""
        if self.size == 1 or not self._sharded:
            return
        self._gather([])
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
        self._gather([])
        rows = [updates.get(index) or (0.0, 0.0, 0, 0) for index in self._sharded]
        sums = torch.tensor([[r[0] ** 2, r[1] ** 2, r[2], r[3]] for r in rows], dtype=torch.float64)
        sums = self._reduce(sums, dist.ReduceOp.SUM).tolist()
        for index, (change, weight, length, nonfinite) in zip(self._sharded, sums, strict=True):
            updates.put(index, change**0.5, weight**0.5, int(length), int(nonfinite))

    def agree(
        self,
        loss: float | None,
        nonfinite: int,
        inputs: list[tuple[str, Numbers]],
        targets: Numbers | None,
    ) -> tuple[float | None, int, list[tuple[str, Numbers]], Numbers | None]:
        """The mean loss of all ranks that have one, the most non-finite elements of any, and the
        numbers of the whole batch, whose inputs are then one."""
        if self.size == 1:
            return loss, nonfinite, inputs, targets
        own = [float(loss is not None), loss or 0.0, float(nonfinite)]
        of_inputs = merged(numbers for _, numbers in inputs)
        table = self._gather([*own, *_row(of_inputs), *_row(targets)])
        losses = [row[1] for row in table if row[0]]
        return (
            sum(losses) / len(losses) if losses else None,
            int(max(row[2] for row in table)),
            [("inputs", whole)] if (whole := _together([row[3:11] for row in table])) else [],
            _together([row[11:] for row in table]),
        )

    def combine_trace(self, trace: Trace | None) -> Trace | None:
        """Makes what hooks saw of each rank's part of the batch that of the whole batch; ``None``
        where the ranks have seen different layers. Every rank must call it."""
        if self.size == 1:
            return trace
        layers = -1 if trace is None else len(trace)
        if {int(row[0]) for row in self._gather([float(layers)])} != {layers} or trace is None:
            return None
        places = [None, *range(layers)]
        own = [
            number
            for place in places
            for numbers in (trace.get_output(place), trace.get_delta(place))
            for number in _row(numbers)
        ]
        table = self._gather(own)
        for index, place in enumerate(places):
            start = 2 * _ROW * index
            output = _together([row[start : start + _ROW] for row in table])
            delta = _together([row[start + _ROW : start + 2 * _ROW] for row in table])
            if output is not None:
                trace.put_output(place, output)
            if delta is not None:
                trace.put_delta(place, delta)
        return trace

    def culprits(self, loss: float | None, inputs: Numbers | None, calls: list[Call]) -> list[int]:
        """The ranks whose loss, inputs or gradient at the model's output stand out: not finite
        where others are, or far above their median. Every rank must call it."""
        if self.size == 1:
            return []
        gradients = [gradient for call in calls for gradient in call.gradients.values()]
        largest = max(map(_largest, gradients), default=0.0, key=_badness)
        own = [abs(loss) if loss is not None else 0.0, _largest(inputs), largest]
        table = torch.tensor(self._gather(own), dtype=torch.float64)
        found: set[int] = set()
        for column in table.t():
            finite = torch.isfinite(column)
            if finite.any() and not finite.all():
                found.update(torch.nonzero(~finite).flatten().tolist())
            elif finite.all():
                usual = column.median()
                found.update(
                    torch.nonzero(column > RANK_RATIO * usual.clamp(min=1e-30)).flatten().tolist()
                )
        return sorted(found) if len(found) < self.size else []

    def first(self, text: str | None) -> str | None:
        """The text of the first rank that has one. Every rank must call it."""
        if self.size == 1:
            return text
        encoded = b"" if text is None else text.encode()
        lengths = [int(row[0]) for row in self._gather([float(len(encoded))])]
        longest = max(lengths)
        if not longest:
            return None
        padded = list(encoded.ljust(longest, b" "))
        rows = self._gather([float(byte) for byte in padded])
        rank = next(rank for rank, length in enumerate(lengths) if length)
        return bytes(int(byte) for byte in rows[rank][: lengths[rank]]).decode()

    def _gather(self, own: list[float]) -> list[list[float]]:
        """The numbers of every rank, in the order of the ranks."""
        fits = len(own) <= _AT_ONCE
        table = self._exchange(self._message(_IS_HERE, own if fits else []))
        said = [row[0] for row in table]
        if any(said):
            self._has_own_group = False
            why = "failed inside" if _HAS_FAILED in said else "closed its guard"
            ranks = [rank for rank, word in enumerate(said) if word]
            raise OthersStopped(f"tamegrad {why} on rank {', '.join(map(str, ranks))}")
        if fits:
            return [row[1 : 1 + len(own)] for row in table]
        return self._exchange(torch.tensor(own, dtype=torch.float64, device=self._device))

    def _message(self, word: float, own: list[float]) -> torch.Tensor:
        padded = [word, *own, *[0.0] * (_AT_ONCE - len(own))]
        return torch.tensor(padded, dtype=torch.float64, device=self._device)

    def _exchange(self, mine: torch.Tensor) -> list[list[float]]:
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        try:
            dist.all_gather(rows, mine, group=self._group)
        except RuntimeError:
            self._has_own_group = False
            raise
        return torch.stack(rows).to("cpu").tolist()

    def _reduce(self, values: torch.Tensor, operation: Any) -> torch.Tensor:
        moved = values.to(self._device)
        dist.all_reduce(moved, operation, group=self._group)
        return moved.to("cpu")


def local_shard(tensor: torch.Tensor) -> torch.Tensor:
    """The shard of a sharded tensor that is on this rank; any other tensor as it is."""
    return getattr(tensor, "_local_tensor", tensor)


def rank_and_size(group: Any) -> tuple[int, int]:
    """The rank of this process among those of a group, of all if none is given, and their number."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(group), dist.get_world_size(group)


_ROW = 8
"""Numbers that are sent of a tensor: whether it is there, and its seven."""


def _row(numbers: Numbers | None) -> list[float]:
    return [0.0] * _ROW if numbers is None else [1.0, *map(float, numbers)]


def _together(rows: list[list[float]]) -> Numbers | None:
    """The numbers of the parts of one tensor."""
    return merged(tuple(row[1:]) for row in rows if row[0])


def _largest(tensor: torch.Tensor | Numbers | None) -> float:
    if isinstance(tensor, tuple):
        return math.nan if tensor[1] else math.inf if tensor[2] else tensor[5]
    if tensor is None or not tensor.numel():
        return 0.0
    return float(tensor.detach().abs().max())


def _badness(size: float) -> float:
    """Orders sizes, NaN above all."""
    return math.inf if math.isnan(size) else size


def _is_sharded(parameter: torch.Tensor) -> bool:
    placements = getattr(parameter, "placements", ())
    return any(placement.is_shard() for placement in placements)
