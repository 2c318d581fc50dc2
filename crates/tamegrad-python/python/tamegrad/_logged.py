"""What the loop has logged for the step at hand: losses, a metric, data, and the batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from ._inspection import nonfinite_rows
from ._numbers import Numbers

_LOSSES_MAX = 1024
"""Losses of micro-batches that are kept for one step."""


class Logged:
    """What was logged and not used yet."""

    def __init__(self) -> None:
        self.losses: list[Any] = []
        self.model_losses: list[Any] = []
        """Losses in the outputs of the model, which count where none was logged."""
        self.batch: Any = None
        """What the loop says that this step is made from."""
        self.holds_batch = False
        """Whether that batch is kept, whatever else is logged for the step."""
        self.rows_before: dict[str, tuple[list[int], int]] = {}
        """Rows that are not finite of what was logged before the run was interrupted."""
        self._metric: Any = None
        self._inputs: torch.Tensor | Numbers | None = None
        self._targets: torch.Tensor | Numbers | None = None

    def keep(self, metric: Any, inputs: Any, targets: Any, batch: Any) -> None:
        """Keeps what was logged besides a loss."""
        if batch is not None and not self.holds_batch:
            self.batch = batch
        if metric is not None:
            self._metric = metric.detach() if isinstance(metric, torch.Tensor) else metric
        if targets is not None and targets.is_floating_point():
            self._targets = targets.detach()
        if inputs is not None:
            self._inputs = inputs.detach()

    def take(self) -> tuple[Any, Any, Any]:
        """Metric, inputs and targets, which are used up."""
        taken = self._metric, self._inputs, self._targets
        self._metric, self._inputs, self._targets = None, None, None
        return taken

    def given(self) -> tuple[Any, Any]:
        """Inputs and targets, which are not used up."""
        return self._inputs, self._targets

    def end_batch(self) -> None:
        """Lets go of the batch of a step."""
        self.batch, self.holds_batch = None, False

    def state(self, numbers_of: Callable[[Any], Numbers | None]) -> dict[str, Any]:
        """The entries of the guard's state that are known here."""
        listed = [numbers_of(tensor) for tensor in (self._inputs, self._targets)]
        inputs, targets = (None if numbers is None else list(numbers) for numbers in listed)
        return {
            "loss": mean(self.losses, 0),
            "metric": None if self._metric is None else float(self._metric),
            "inputs": inputs,
            "targets": targets,
            "rows": [[name, count, rows] for name, rows, count in self._nonfinite_rows()],
        }

    def restore(self, entries: dict[str, Any]) -> None:
        """Takes the entries of a state that was checked."""
        self.losses = [] if entries["loss"] is None else [entries["loss"]]
        self._metric = entries["metric"]
        self._inputs, self._targets = (
            None if numbers is None else tuple(numbers)
            for numbers in (entries["inputs"], entries["targets"])
        )
        self.rows_before = {name: (rows, count) for name, count, rows in entries["rows"]}

    def _nonfinite_rows(self) -> list[tuple[str, list[int], int]]:
        """The rows that are not finite of what was logged for the step to come."""
        logged = (("inputs", self._inputs), ("targets", self._targets))
        found = [
            (name, *nonfinite_rows(tensor))
            for name, tensor in logged
            if isinstance(tensor, torch.Tensor)
        ]
        before = [(name, *rows) for name, rows in self.rows_before.items()]
        return before + [row for row in found if row[2]]


def add_loss(losses: list[Any], loss: Any) -> None:
    """Adds the loss of a micro-batch; of very many the first are let go of."""
    losses.append(loss)
    if len(losses) > _LOSSES_MAX:
        del losses[0]


def mean(losses: list[Any], nonfinite: int) -> float | None:
    """The mean loss of the micro-batches of a step whose gradients have so many elements that are not
    finite. Without any, a loss that is not finite is of a step that a ``GradScaler`` has left out."""
    known = [float(loss) for loss in losses]
    finite = [loss for loss in known if math.isfinite(loss)]
    counted = finite if finite and not nonfinite else known
    return sum(counted) / len(counted) if counted else None
