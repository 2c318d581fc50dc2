"""Runs an objective once, as a trial."""

from __future__ import annotations

import contextlib
import gc
import json
import random
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .._telling import TamegradWarning
from .change import CannotApply
from .outcome import Outcome, Task
from .trial import Trial, TrialEnd

Objective = Callable[[Trial], Any]


def run_trial(objective: Objective, task: Task) -> Outcome:
    """Runs the objective with the changes of a task. What the objective raises is noted in the outcome;
    only ``KeyboardInterrupt`` and ``SystemExit`` pass."""
    begin = time.perf_counter()
    trial = Trial(task)
    found: dict[str, Any] = {"status": "finished"}
    with _chance(task.seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=TamegradWarning)
        try:
            value = objective(trial)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                trial._state.metrics.setdefault("validation", float(value))
            if trial.guard is None:
                raise ValueError("the objective did not call trial.prepare(model, optimizer)")
        except TrialEnd:
            found["status"] = "stopped" if trial._state.is_stopped else "finished"
        except CannotApply as error:
            found.update(status="refused", error=str(error))
        except Exception as error:
            found.update(status="failed", error=_told(error))
        found.update(_seen(trial, task))
        seconds = time.perf_counter() - begin
        outcome = Outcome.of(task, seconds=round(seconds, 3), **found)
        if trial.guard is not None:
            trial.guard.close()
        del trial
        gc.collect()
    return outcome


def _seen(trial: Trial, task: Task) -> dict[str, Any]:
    """What the guard has seen, and the facts of the run as given."""
    state, metrics = trial._state, trial._state.metrics
    total = trial.total or (trial.steps_done if task.stage == "given" else None)
    samples = trial.offered.get("batch_size")
    # With other batches each step costs more or less; a training by epochs has fewer or more steps.
    ratio = 1.0
    if samples and "epochs" not in trial.offered:
        ratio = next((c["samples"] / samples for c in trial.changes if c.kind == "batch-size"), 1.0)
    seen = {
        "metric": metrics.get("validation"),
        "test": metrics.get("test") if task.part >= 1.0 else None,
        "first_loss": state.first_loss(),
        "loss": state.last_loss(),
        "constant": state.constant.loss(trial.rows),
        "steps": trial.steps_done,
        "total": total,
        "cost": ratio * trial.steps_done / total if total else 0.0,
    }
    if trial.guard is None:
        return seen
    diagnosis = trial.guard.diagnosis()
    seen |= {"verdict": diagnosis.verdict, "onset": diagnosis.onset}
    if task.stage == "given":
        rates = state.rates
        onset = diagnosis.onset
        at = None if onset is None or not rates else min(onset, len(rates) - 1)
        seen["facts"] = {
            "diagnosis": json.loads(diagnosis.to_json()),
            "remedies": [_remedy(remedy) for remedy in diagnosis.remedies],
            "text": diagnosis.text(),
            "groups": state.groups,
            "modules": state.modules,
            "rates": None if at is None else [rates[at // 2], rates[at]],
            "shorten": _shorten(trial),
            "knobs": {name: _plain(value) for name, value in trial.offered.items()},
        }
    return seen


def _shorten(trial: Trial) -> str:
    """How the trials of this objective can be shorter than the training."""
    if "batches" in trial.offered:
        return "batches"
    is_counted = "steps" in trial.offered or "epochs" in trial.offered
    return "steps" if is_counted and not trial.ends_itself else "stop"


def _remedy(remedy: Any) -> dict[str, Any]:
    code = {name: remedy.code(name) for name in ("pytorch", "lightning", "transformers")}
    return {
        "label": remedy.name,
        "text": remedy.change,
        "why": remedy.why,
        "treats_cause": remedy.treats_cause,
        "grade": remedy.grade,
        "code": {name: lines for name, lines in code.items() if lines is not None},
    }


def _plain(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bool)) else str(value)


def _told(error: Exception) -> str:
    """The exception, and the line of the objective that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/tamegrad/" not in f.filename.replace("\\", "/")]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {error}{where}"


@contextlib.contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Sets the seeds of torch, NumPy and Python, and puts the states back at the end."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    numpy = sys.modules.get("numpy")
    kept = random.getstate(), None if numpy is None else numpy.random.get_state()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        random.seed(seed)
        if numpy is not None:
            numpy.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(kept[0])
            if numpy is not None:
                numpy.random.set_state(kept[1])
