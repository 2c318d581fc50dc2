"""What a situation is: a training run that breaks as one in a public report did, and its repaired twin.

A situation is a function ``(seed, fixed) -> Run`` under the decorator :func:`situation`. The line of
code that is to blame carries the comment ``# fault``; it may stand in the function or in a class or
function listed under ``code``. ``fixed`` gives the same run with the fault mended as in the report.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

MARK = "# fault"

Backward = Callable[..., None]
"""``backward(loss, batch, scale=1)``: what a loop calls in place of ``(loss * scale).backward()``."""


@dataclass
class Run:
    """A run that is ready to train."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Sequence[Any]
    """One for each step, in order, drawn without the global random state."""
    step_fn: Callable[[nn.Module, Any], torch.Tensor]
    """The loss of a batch, as the author of the loop wrote it."""
    held: Sequence[Any] = ()
    """Clean batches, whose mean loss by ``step_fn`` is the score."""
    score: Callable[[nn.Module], float] | None = None
    """The score, where the loss of the run cannot be compared with that of its twin; lower is better."""
    fault_at: int = 0
    """No sign of the fault can be seen before this step."""
    update: Callable[[Any, Backward], None] | None = None
    """One step of a loop that is not zero_grad, backward, step: it calls ``backward`` for each loss
    and steps the optimizer."""
    scheduler: Any = None
    scaler: Any = None


@dataclass(frozen=True)
class Situation:
    """A run that breaks, with what a good diagnosis says of it."""

    name: str
    row: str
    """The row of the table of causes: ``data``, ``precision``, ``singular``, ``empty-set``, ``mask``,
    ``optimizer``, ``learning-rate``, ``accumulation``, ``labels``, ``unscaled``, ``initialisation``,
    ``normalisation``, ..."""
    cause: str
    """The cause that should come first."""
    also: frozenset[str]
    """Causes that are as good an answer, where the reports themselves call the fault by both."""
    remedies: frozenset[str]
    """Each of these, among the first three remedies, is the cure."""
    build: Callable[[int, bool], Run]
    file: str
    lines: frozenset[int]
    """The marked lines; empty where no operation is to blame."""


SITUATIONS: list[Situation] = []


def situation(
    name: str,
    *,
    row: str,
    cause: str,
    remedies: set[str],
    also: set[str] | frozenset[str] = frozenset(),
    code: Sequence[Any] = (),
) -> Callable[[Callable[[int, bool], Run]], Callable[[int, bool], Run]]:
    """Registers a function as a situation. ``code`` lists classes and functions of the same file in
    which its marked line may stand as well."""

    def register(build: Callable[[int, bool], Run]) -> Callable[[int, bool], Run]:
        lines = frozenset(line for part in (build, *code) for line in _marked(part))
        file = Path(inspect.getsourcefile(build) or "").name
        found = Situation(
            name, row, cause, frozenset(also), frozenset(remedies), build, file, lines
        )
        if any(known.name == name for known in SITUATIONS):
            raise ValueError(f"situation: got {name!r} twice, want a name of its own")
        SITUATIONS.append(found)
        return build

    return register


def _marked(part: Any) -> list[int]:
    lines, start = inspect.getsourcelines(part)
    return [start + at for at, line in enumerate(lines) if line.rstrip().endswith(MARK)]
