"""What the callbacks of all libraries share: options, the guard, and its state."""

from __future__ import annotations

from typing import Any

from .._watch import watch
from ..diagnosis import Diagnosis
from ..guard import Guard


class GuardHolder:
    """Holds the guard of one run, from its first step to its last."""

    def __init__(self, mode: str, metric: str | None, options: dict[str, Any]) -> None:
        super().__init__()
        self._mode = mode
        self._metric = metric
        self._options = options
        self._saved: dict[str, Any] | None = None
        self.guard: Guard | None = None

    def diagnosis(self) -> Diagnosis:
        """The diagnosis so far. Raises ``RuntimeError`` before the run has begun."""
        if self.guard is None:
            raise RuntimeError("the run has not started, so there is nothing to diagnose")
        return self.guard.diagnosis()

    def _begin(self, model: Any, optimizers: Any, **known: Any) -> None:
        """Watches, and goes on where the guard of a checkpoint stood, in the folder of its run;
        ``known`` are options that the library tells and the user may override."""
        if self._saved is not None:
            known["if_run_exists"] = "resume"
        self.guard = watch(model, optimizers, self._mode, **{**known, **self._options})
        saved, self._saved = self._saved, None
        if saved is not None:
            self.guard.load_state_dict(saved)

    def _log_metric(self, metrics: Any) -> None:
        if self.guard is not None and metrics and self._metric in metrics:
            self.guard.log(metric=metrics[self._metric])

    def _end(self) -> None:
        if self.guard is not None:
            self.guard.close()
