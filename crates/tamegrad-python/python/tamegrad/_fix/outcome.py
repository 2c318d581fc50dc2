"""What a trial is to do, and its result: values that a worker and the journal can carry."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .._json import json_number
from .change import Change

HEALTHY = ("healthy", "too-early")
"""Verdicts of a run in which nothing was found."""
MARGIN = 0.02
"""How far below the best, as a part of its score, a milder change may be."""
_FALL = 0.02
"""By how much of a level the loss is below it, if it is."""
EXPLODING = ("exploded", "exploding", "dead")
"""Verdicts of a run that has not recovered."""


@dataclass(frozen=True)
class Task:
    """One trial to run."""

    label: str
    changes: tuple[Change, ...] = ()
    seed: int = 0
    part: float = 1.0
    """How much of the training it runs."""
    stage: str = "given"
    """``given``, ``short``, ``seed`` (short, with another seed) or ``full``."""
    total: int | None = None
    """Steps of the training as given, where they are known."""
    shorten: str = "stop"
    """How it is shortened: ``batches`` (the loop over batches ends), ``steps`` (the knob says fewer) or
    ``stop`` (the objective is left at an optimizer's step)."""
    stops: bool = True
    """Whether it ends when it has exploded."""

    @property
    def key(self) -> str:
        """What tells it from the other trials of a search."""
        return f"{self.label} seed={self.seed} part={self.part:.6g}"


@dataclass(frozen=True)
class Outcome:
    """The result of a trial."""

    label: str
    changes: tuple[Change, ...]
    stage: str
    seed: int
    part: float
    key: str
    status: str
    """``finished``; ``stopped`` after an explosion; ``refused``: the change does not apply to the
    objective; ``failed``: the objective raised an exception."""
    verdict: str | None = None
    """The verdict of the guard that watched it."""
    onset: int | None = None
    """Step of the first alarm."""
    metric: float | None = None
    """The validation metric that was reported last."""
    test: float | None = None
    """The same of the test part; only of trials to the end."""
    first_loss: float | None = None
    """Mean of the first training losses."""
    loss: float | None = None
    """Mean of the last training losses."""
    constant: float | None = None
    """Loss of the best constant answer, where that is known."""
    steps: int = 0
    """Batches drawn, or steps of the optimizer where they are not drawn from the trial."""
    total: int | None = None
    """Steps of the whole training."""
    cost: float = 0.0
    """In multiples of the training as given."""
    seconds: float = 0.0
    error: str | None = None
    """Why it was refused or failed."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Of the given run: its diagnosis, optimizer and knobs."""

    @classmethod
    def of(cls, task: Task, **found: Any) -> Outcome:
        """The outcome of a task."""
        about = (task.label, task.changes, task.stage, task.seed, task.part, task.key)
        return cls(*about, **found)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing was found to its end."""
        return self.status == "finished" and self.verdict in HEALTHY

    @property
    def is_constant(self) -> bool:
        """Whether its last losses are no better than those of the best constant answer."""
        known = self.loss is not None and self.constant is not None
        return known and not self.loss < (1.0 - _FALL) * self.constant

    @property
    def has_learned(self) -> bool:
        """Whether its loss has fallen, and below that of the best constant answer where that is known.
        Without losses nobody knows."""
        if self.loss is None or self.first_loss is None:
            return True
        fell = self.loss < self.first_loss - _FALL * abs(self.first_loss)
        return fell and not self.is_constant

    @property
    def is_usable(self) -> bool:
        """Whether it is healthy, or recovered by its end."""
        return self.status == "finished" and self.verdict in (*HEALTHY, "recovered")

    def code(self, framework: str = "pytorch") -> str | None:
        """The lines that carry out its changes; ``None`` where there is none to show, as for the training
        as given."""
        lines = [change.code[framework] for change in self.changes if framework in change.code]
        return "\n".join(lines) or None

    def score(self, sign: float) -> float:
        """What is compared, higher is better: the metric, or else the loss with its sign turned;
        -Inf where it is not finite. ``sign`` is -1 for a metric that should be low."""
        value = sign * self.metric if self.metric is not None else -(self.loss or math.nan)
        return value if math.isfinite(value) else -math.inf

    def to_dict(self) -> dict[str, Any]:
        """The outcome for JSON, in which NaN and Inf are strings."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Outcome:
        """The outcome that :meth:`to_dict` gave."""
        changes = tuple(Change.of_dict(change) for change in values["changes"])
        numbers = {
            name: float(values[name])
            for name in ("metric", "test", "first_loss", "loss", "constant")
            if values[name] is not None
        }
        return cls(**{**values, "changes": changes, **numbers})


def _plain(value: Any) -> Any:
    if isinstance(value, Change):
        return asdict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return json_number(value)
