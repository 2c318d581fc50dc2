"""What is measured once, after an alarm: the operation, the labels, the rows, the optimizer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from ._gradients import values_of
from ._operations import Labels, MeasuredOperation, TargetRange
from ._optimizer_facts import Division
from ._ranks import Ranks
from ._time_steps import TimeSteps

_ROWS_MAX = 20
"""Rows of a tensor that are named."""


@dataclass(frozen=True)
class Accumulation:
    """Backward passes whose gradients were added up in one step."""

    passes: int
    norm_of_one: float
    """Norm of the gradients of the last of them alone."""
    norm: float
    """Norm of the gradients of the step."""
    norm_left: float = 0.0
    """Norm of what the step before had left in them."""


@dataclass
class Inspection:
    """What was found after an alarm; ``None`` and nothing where it is not known."""

    operation: MeasuredOperation | None = None
    labels: Labels | None = None
    target_range: TargetRange | None = None
    rows: dict[str, list[int]] = field(default_factory=dict)
    """The first rows that are not finite of each input and target that has any."""
    row_counts: dict[str, int] = field(default_factory=dict)
    """How many there are of them."""
    division: Division | None = None
    accumulation: Accumulation | None = None
    time_steps: TimeSteps | None = None
    parameter: tuple[int, int] | None = None
    """The first parameter that is not finite, by its place, and how many of its elements are not."""

    def agreed(self, ranks: Ranks) -> Any:
        """What all ranks take for it: that of the first which has found an operation or rows."""
        if ranks.size == 1:
            return self
        own = json.dumps(dataclasses.asdict(self))
        telling = own if self.operation is not None or self.rows else None
        text = ranks.first(telling) or ranks.first(own)
        found = json.loads(text or own, object_hook=lambda fields: SimpleNamespace(**fields))
        found.rows, found.row_counts = vars(found.rows), vars(found.row_counts)
        found.parameter = found.parameter and tuple(found.parameter)
        return found

    def see_rows(self, named: Iterable[tuple[str, Any]]) -> None:
        """Takes in the rows that are not finite of these tensors."""
        for name, tensor in named:
            if isinstance(tensor, torch.Tensor):
                self.take_rows({name: nonfinite_rows(tensor)})

    def take_rows(self, found: dict[str, tuple[list[int], int]]) -> None:
        """Takes in rows that are not finite, and how many there are, by the name of the tensor."""
        for name, (rows, count) in found.items():
            if count and name not in self.rows:
                self.rows[name], self.row_counts[name] = rows, count


@torch.no_grad()
def broken_parameter(parameters: Sequence[torch.Tensor]) -> tuple[int, int] | None:
    """The first of these parameters that is not finite, by its place, and how many of its elements are
    not."""
    for index, parameter in enumerate(parameters):
        if parameter.is_floating_point() or parameter.is_complex():
            count = int((~torch.isfinite(values_of(parameter.detach())[0])).sum())
            if count:
                return index, count
    return None


@torch.no_grad()
def nonfinite_rows(tensor: torch.Tensor) -> tuple[list[int], int]:
    """The first numbers of the rows, along the first dimension, that hold NaN or Inf, and how many there
    are of such rows."""
    is_number = tensor.is_floating_point() or tensor.is_complex()
    if not is_number or tensor.is_nested or tensor.layout != torch.strided or not tensor.numel():
        return [], 0
    values = values_of(tensor.detach())[0]
    broken = (~torch.isfinite(values)).reshape(values.shape[0] if values.dim() else 1, -1).any(1)
    rows = torch.nonzero(broken).flatten()
    return rows[:_ROWS_MAX].tolist(), rows.numel()
