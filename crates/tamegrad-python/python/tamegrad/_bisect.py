"""What breaks a step: it is rerun under other conditions, and with fewer and fewer rows."""

from __future__ import annotations

import html
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import _core, _rows
from ._bench import Bench, StepFn
from ._conditions import untouched
from ._experiments import AGAIN, CHANGES, UPDATE, UPDATES, Change, Experiment
from ._incident import Incident, load_incident
from ._json import json_number
from ._optimizers import resolved

if TYPE_CHECKING:
    from ._steps import Steps

__all__ = ["Bisection", "Experiment", "bisect", "bisect_last"]

SCHEMA = "tamegrad/bisection/1"
_TIMES = 100.0
"""A gradient this many times the median of the batch's parts is huge."""
_CLOSE = 0.01
"""Losses that differ by less, relative to the larger, are the same."""
_PARTS = 8
"""Parts of a batch whose gradients are compared."""
_BEFORE_UPDATE = "the step breaks before its update"
_NOT_BROKEN = "nothing broke when the step was rerun, so the other experiments say little"


class Bisection:
    """How a step went under each condition, and which rows of its batch break it.

    ``str()`` gives it as a table, and IPython shows the same.
    """

    def __init__(self, incident: Incident) -> None:
        self.step = incident.step
        self.table: list[Experiment] = []
        """The experiments, including those that do not apply or were not run."""
        self.limit: float | None = None
        """The gradient norm above which a finite step counts as broken, if one was needed."""
        self.is_reproduced: bool | None = None
        """Whether the rerun had the loss of the incident; ``None`` if that is unknown."""
        self.is_repeatable: bool | None = None
        """Whether the step gave the same bits twice; if not, suspect the hardware or a nondeterministic
        kernel."""
        self.rows: list[int] = []
        """The rows of the batch that break the step."""
        self.row_sets: list[list[int]] = []
        """The same rows in sets, each of which breaks the step on its own and needs all of its rows."""
        self.size: int | None = None
        """How many rows the batch has."""
        self.smallest_batch: Any = None
        """The batch cut down to the first of these sets."""
        self.cause: str | None = None
        """The cause that the experiments point to together."""
        self.notes: list[str] = []
        """What limits the result."""

    def text(self) -> str:
        """The table as lines of text."""
        lines = [f"Step {self.step}, rerun with one change at a time:", ""]
        head = ("experiment", "breaks", "loss", "gradient norm", "largest", "seconds")
        cells = [head, *(_cells(row) for row in self.table)]
        widths = [max(len(row[i]) for row in cells if len(row) > 2) for i in range(len(head))]
        widths[0] = max(len(row[0]) for row in cells)
        for row in cells:
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  " + "  ".join(padded).rstrip())
        lines += ["", *(f"{name}: {words}" for name, words in self._words())]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The result as nested dictionaries and lists for JSON, with NaN and infinity as strings."""
        table = []
        for row in self.table:
            held = {key: value for key, value in asdict(row).items() if key != "bits"}
            table.append({key: json_number(value) for key, value in held.items()})
        return {
            "schema": SCHEMA,
            "step": self.step,
            "cause": self.cause,
            "is_reproduced": self.is_reproduced,
            "is_repeatable": self.is_repeatable,
            "limit": json_number(self.limit),
            "experiments": table,
            "rows": self.rows,
            "row_sets": self.row_sets,
            "batch_size": self.size,
            "notes": self.notes,
        }

    def _words(self) -> list[tuple[str, str]]:
        words = []
        if self.cause is not None:
            words.append(("cause", self.cause))
        if self.rows:
            sets = " or ".join(", ".join(map(str, rows)) for rows in self.row_sets)
            words.append(("rows", f"{sets} of {self.size} (counted from 0) break the step"))
        return [*words, *(("note", note) for note in self.notes)]

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        broken = [row.name for row in self.table if row.breaks]
        return (
            f"Bisection(step={self.step}, breaks={broken}, rows={self.rows}, cause={self.cause!r})"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text())}</pre>"


def bisect(
    incident: Incident,
    model: nn.Module,
    step_fn: StepFn,
    *,
    optimizer: Any = None,
    seconds: float = 60.0,
    memory: int | None = None,
    limit: float | None = None,
) -> Bisection:
    """Reruns the step of an incident, each time with one change: in float32, without autocast,
    uncompiled, on the CPU and so on; then finds the rows of the batch that break it.

    ``step_fn(model, batch)`` returns the loss. It uses the model that it is given, a copy of yours,
    enters autocast as your loop does, and does not call ``backward()``. With an ``optimizer`` the update
    is tried as well. Your model, optimizer, random states and settings of torch stay as they are; other
    effects of ``step_fn``, such as drawing from a generator of its own, are not undone.

    A step breaks if its loss or gradient is not finite or, with an update, if the parameters are not
    finite afterwards. A finite step also breaks if its gradient norm is above ``limit``, by default 100
    times the median gradient norm of eighths of the batch.

    The parameters are those of the incident or, if they were not saved or the update has broken them,
    the current ones of the model. After ``seconds`` no further experiment is started. Experiments whose
    copy of the model needs more than ``memory`` bytes are skipped.

    Raises ``ValueError`` if the incident is of another model or has no batch, and ``TypeError`` if
    ``step_fn`` does not return a loss. What ``step_fn`` raises the first time is passed on.
    """
    if not isinstance(incident, Incident):
        raise TypeError(
            f"incident: got {type(incident).__name__}, want what tamegrad.load_incident(folder) gives"
        )
    if not callable(step_fn):
        raise TypeError(f"step_fn: got {type(step_fn).__name__}, want a function (model, batch)")
    incident.check(model)
    if incident.batch is None:
        raise ValueError(
            "incident: got one without a batch, want one with; call guard.log(batch=batch) in the loop, "
            "or guard.dump(batch=batch)"
        )
    found = Bisection(incident)
    restores = incident.has_usable_parameters()
    optimizers = [] if optimizer is None else resolved(optimizer)
    if optimizers and restores and not incident.about["optimizers"]["kept"]:
        found.notes.append(
            "the state of the optimizer is the current one, because that of the step was not saved"
        )
        restores = False
    if not restores:
        _check_finite(model)
        found.notes.append(
            "the parameters are the current ones of the model, not those of the step"
        )
    found.notes += [f"part of the batch was not saved: {lost}" for lost in incident.lost]
    until = time.perf_counter() + seconds
    with untouched(model):
        bench = Bench(incident, model, optimizers, step_fn, restores=restores)
        _Search(bench, found, incident, until, memory, limit).run()
    return found


def _check_finite(model: nn.Module) -> None:
    """Raises ``ValueError`` if a model was broken already: with it, everything breaks."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ValueError(
                f"model: got `{name}` with elements that are not finite, want the parameters from before "
                "the step, which the incident does not have; load your latest checkpoint into the model"
            )


def bisect_last(steps: Steps, step_fn: StepFn, options: dict[str, Any]) -> Bisection:
    """:func:`bisect` of what a guard has kept."""
    folder = steps.incidents.folder
    if folder is None:
        raise ValueError(
            "guard.bisect: got no saved alarm, want one; record the run (run=...) or pass "
            "incidents='incidents' to tamegrad.watch, or use tamegrad.load_incident(guard.dump(...))"
        )
    options = {"optimizer": steps.scaling.optimizers or None, **options}
    return bisect(load_incident(folder), steps.incidents.model, step_fn, **options)


class _Search:
    """One search, within its limits."""

    def __init__(
        self,
        bench: Bench,
        found: Bisection,
        incident: Incident,
        until: float,
        memory: int | None,
        limit: float | None,
    ) -> None:
        self._bench, self._found, self._batch = bench, found, incident.batch
        self._loss = incident.loss
        self._until, self._memory, self._limit = until, memory, limit
        self._errors: set[str] = set()

    def run(self) -> None:
        """Fills in what is found."""
        found = self._found
        found.size = _rows.batch_size(self._batch)
        too_much = self._too_much(AGAIN)
        if too_much is not None:
            found.table.append(Experiment(AGAIN.name, "not-run", too_much))
            found.notes.append("nothing was run")
            return
        again = self._bench.run(AGAIN, is_first=True)
        is_whole = again.finite_loss and again.finite_gradients
        if is_whole:
            found.limit = self._limit if self._limit is not None else self._usual_limit()
        self._add(again)
        self._compare(again.loss)
        for change in CHANGES:
            done = self._try(change)
            if change.name == "again-2" and done.state == "ran" and done.error is None:
                found.is_repeatable = done.bits == again.bits
        updates = [self._try(change, None if is_whole else _BEFORE_UPDATE) for change in UPDATES]
        found.cause = _cause(self._judged())
        broken = AGAIN if again.breaks else UPDATE if updates[0].breaks else None
        if broken is None:
            found.notes.append(_NOT_BROKEN)
        elif found.size is not None:
            self._find_rows(broken)
        if found.is_repeatable is False:
            found.notes.append(
                "the same step gave different bits twice: suspect a nondeterministic kernel, the "
                "hardware, or a step_fn that draws from a generator of its own"
            )

    def _compare(self, loss: float | None) -> None:
        """Notes whether it is the loss of the incident."""
        found, was = self._found, self._loss
        if was is None or loss is None:
            return
        is_close = math.isclose(was, loss, rel_tol=_CLOSE)
        found.is_reproduced = is_close or not (math.isfinite(was) or math.isfinite(loss))
        if not found.is_reproduced:
            found.notes.append(
                f"the loss is {loss:.4g} and was {was:.4g}: batch, parameters, random state or step_fn "
                "are not those of the step"
            )

    def _add(self, done: Experiment) -> Experiment:
        done.breaks = self._breaks(done)
        self._found.table.append(done)
        return done

    def _try(self, change: Change, why_not: str | None = None) -> Experiment:
        why = change.why_not(self._bench.facts) or why_not
        if why is not None:
            return self._add(Experiment(change.name, "does-not-apply", why))
        why = "out of time" if self._is_over() else self._too_much(change)
        if why is not None:
            return self._add(Experiment(change.name, "not-run", why))
        return self._add(self._bench.run(change))

    def _is_over(self) -> bool:
        return time.perf_counter() >= self._until

    def _too_much(self, change: Change) -> str | None:
        need = self._bench.need(change)
        if self._memory is None or need <= self._memory:
            return None
        return f"it needs {need >> 20} MiB, above the limit of {self._memory >> 20} MiB"

    def _breaks(self, done: Experiment) -> bool | None:
        """Whether an experiment has broken; one with an update by the parameters alone."""
        if done.state != "ran" or done.error is not None:
            return None
        if done.finite_parameters is not None:
            return not done.finite_parameters
        if not (done.finite_loss and done.finite_gradients):
            return True
        limit = self._found.limit
        return limit is not None and done.gradient_norm is not None and done.gradient_norm > limit

    def _usual_limit(self) -> float | None:
        """Many times the median of the gradient norms that parts of the batch have."""
        size = self._found.size
        if size is None:
            return None
        norms = []
        for rows in _rows.split(list(range(size)), _PARTS):
            if self._is_over():
                return None
            done = self._bench.run(AGAIN, self._taker(rows))
            if done.gradient_norm is not None:
                norms.append(done.gradient_norm)
        return _TIMES * statistics.median(norms) if norms else None

    def _taker(self, rows: list[int]) -> Callable[[Any], Any]:
        size = self._found.size
        assert size is not None
        return lambda batch: _rows.taken(batch, size, rows)

    def _find_rows(self, broken: Change) -> None:
        found = self._found
        if self._breaks_without_compiling():
            # Each number of rows would be compiled anew.
            broken = Change(broken.name, compiles=False, updates=broken.updates)

        def breaks(rows: list[int]) -> bool | None:
            if self._is_over():
                return None
            done = self._bench.run(broken, self._taker(rows))
            if done.error is not None:
                self._errors.add(done.error)
            return bool(self._breaks(done))

        assert found.size is not None
        found.row_sets, is_complete = _rows.smallest_sets(found.size, breaks)
        found.rows = sorted({row for rows in found.row_sets for row in rows})
        if found.row_sets:
            found.smallest_batch = _rows.taken(self._batch, found.size, found.row_sets[0])
        elif is_complete:
            found.notes.append("every row breaks on its own, so no particular rows are to blame")
        if not is_complete:
            found.notes.append("the search for rows ran out of time")
        found.notes += [
            f"with fewer rows, step_fn raised {error}" for error in sorted(self._errors)
        ]

    def _breaks_without_compiling(self) -> bool:
        return any(row.name == "no-compile" and row.breaks for row in self._found.table)

    def _judged(self) -> list[tuple[str, bool | None]]:
        found = self._found
        rows = [
            (row.name, None if row.breaks is None else not row.breaks)
            for row in found.table
            if row.state == "ran"
        ]
        return [*rows, ("same-bits", found.is_repeatable)]


def _cause(rows: list[tuple[str, bool | None]]) -> str | None:
    """What the core makes of the experiments: each with whether the step stayed whole, and ``same-bits``
    with whether it gave the same bits twice."""
    return _core.judge_experiments(rows)


def _cells(row: Experiment) -> tuple[str, ...]:
    if row.state != "ran":
        state = "does not apply" if row.state == "does-not-apply" else "not run"
        return row.name, f"{state}: {row.why}"
    if row.error is not None:
        return row.name, f"raised {row.error}"
    numbers = (row.loss, row.gradient_norm, row.largest)
    return row.name, _what(row), *(f"{number:.4g}" for number in numbers), f"{row.seconds:.2f}"


def _what(row: Experiment) -> str:
    """What has broken first."""
    if not row.breaks:
        return "no"
    if row.finite_parameters is not None and row.finite_gradients:
        return "parameters"
    if not row.finite_loss:
        return "loss"
    return "gradient"
