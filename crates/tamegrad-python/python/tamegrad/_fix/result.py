"""What a search found, to read, print and save."""

from __future__ import annotations

import html
import json
import os
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .outcome import Outcome
from .reasons import reason
from .table import lines_of

SCHEMA = "tamegrad/torch-fix/1"

_KEPT = {
    "recovered": "recovers by itself, and no change is better",
    "not-learning": "does not lower its loss, and no change is better",
}


@dataclass(frozen=True)
class Advice:
    """What the diagnosis proposes and no trial can apply."""

    label: str
    text: str
    why: str
    code: dict[str, str] = field(default_factory=dict)


class Fix:
    """The result of :func:`tamegrad.fix`; ``str()`` gives all of it as text."""

    def __init__(self, budget: float, sign: float) -> None:
        self.budget = budget
        self.sign = sign
        """-1 where a good metric is low."""
        self.given: Outcome | None = None
        """The training as given."""
        self.trials: list[Outcome] = []
        """All trials, the one as given first."""
        self.best: Outcome | None = None
        """What was chosen: the training as given where that is healthy, or the mildest change that
        works; ``None`` where nothing does."""
        self.advice: list[Advice] = []
        """What else the diagnosis proposes, for you to do in code or data."""
        self.is_interrupted = False
        """Whether Ctrl-C ended the search."""
        self.is_exhausted = False
        """Whether the budget ended it."""

    @property
    def cost(self) -> float:
        """What the trials have cost, in multiples of the training as given."""
        return sum(trial.cost for trial in self.trials)

    @property
    def is_fixed(self) -> bool:
        """Whether a change was trained to the end and stayed healthy, or nothing had to be fixed."""
        best = self.best
        return best is not None and best.part >= 1.0 and (best.is_usable or best is self.given)

    @property
    def diagnosis(self) -> str:
        """The diagnosis of the training as given, as text."""
        return "" if self.given is None else self.given.facts.get("text", "")

    @property
    def table(self) -> str:
        """Every trial: what it changed, its verdict, metrics and cost, and why it was not chosen."""
        rows = [
            [
                "*" if trial is self.best else "",
                trial.label,
                "; ".join(change.text for change in trial.changes),
                _of_training(trial),
                trial.verdict if trial.status in ("finished", "stopped") else trial.status,
                _number(trial.metric),
                _number(trial.test),
                f"{trial.cost:.2f}",
                reason(trial, self),
            ]
            for trial in self.trials
        ]
        head = [
            "",
            "trial",
            "change",
            "run",
            "verdict",
            "validation",
            "test",
            "cost",
            "why not chosen",
        ]
        return "\n".join(lines_of(head, rows, right=(5, 6, 7)))

    def summary(self) -> str:
        """The result in a few sentences."""
        best, given = self.best, self.given
        cost = f"{self.cost:.2f} trainings of a budget of {self.budget:g}"
        if given is None:
            return "The search was interrupted before the training as given had ended."
        if best is given:
            kept = _KEPT.get(given.verdict or "", "is healthy and is left alone")
            return f"The training as given {kept}. Cost: {cost}."
        ended = " The search was interrupted." if self.is_interrupted else ""
        if best is None:
            spent = " The budget is used up." if self.is_exhausted else ""
            return f"No change was found that works.{ended}{spent} Cost: {cost}."
        what = " and ".join(change.text for change in best.changes)
        if best.part < 1.0:
            return f"Not trained to the end: {what}, which did best in a short trial.{ended} Cost: {cost}."
        lines = f"Fixed with the mildest change that works: {what}.{ended} Cost: {cost}."
        return f"{lines} {self._metrics(best)}"

    def _metrics(self, best: Outcome) -> str:
        if best.metric is None:
            return "No metric was reported, so the last training losses were compared."
        if best.test is None:
            return (
                f"Validation {_number(best.metric)}; no test metric was reported. This number was used for "
                "selection, so it is a little too good."
            )
        return f"Validation {_number(best.metric)}, test {_number(best.test)} (not used for selection)."

    def __str__(self) -> str:
        parts = []
        if self.given is not None and self.best is not self.given:
            parts.append("\n".join(self.diagnosis.splitlines()[:12]).rstrip())
        parts += [self.table, textwrap.fill(self.summary(), 100)]
        code = self.best.code() if self.best is not None else None
        if code:
            parts.append(code)
        if self.advice and self.best is not self.given:
            told = [f"  {advice.label}: {advice.text} ({advice.why})" for advice in self.advice]
            parts.append("Not tried, for you to decide:\n" + "\n".join(told))
        return "\n\n".join(parts) + "\n"

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON, in which NaN and Inf are strings; docs/fix.md describes the keys."""
        best = self.best
        return {
            "schema": SCHEMA,
            "budget": self.budget,
            "cost": self.cost,
            "is_fixed": self.is_fixed,
            "is_interrupted": self.is_interrupted,
            "is_exhausted": self.is_exhausted,
            "best": None if best is None else best.key,
            "code": None if best is None else best.code(),
            "trials": [
                {**trial.to_dict(), "why_not": reason(trial, self)} for trial in self.trials
            ],
            "advice": [vars(advice) for advice in self.advice],
        }

    def to_json(self) -> str:
        """The result as JSON."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``report.txt``, ``report.json`` and, if there is a change, ``change.py`` to a folder.
        Returns the folder. Raises ``OSError`` if it cannot be written."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "report.txt").write_text(str(self), "utf-8")
        (path / "report.json").write_text(self.to_json(), "utf-8")
        code = self.best.code() if self.best is not None else None
        if code:
            (path / "change.py").write_text(code + "\n", "utf-8")
        return path


def _of_training(trial: Outcome) -> str:
    part = "whole" if trial.part >= 1.0 else f"{trial.part:.0%}"
    return f"{part}, seed {trial.seed}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
