"""Transformers: a callback that watches a Trainer's optimizer."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from .._watch import watch
from ..diagnosis import Diagnosis
from ..guard import Guard


class TamegradCallback(TrainerCallback):
    """Watches a run from its first step to its last.

    The Trainer clips before the optimizer's step, so the norms that are seen are at most
    ``max_grad_norm``: set it to 0 and give ``max_norm`` here to see and clip the true ones.
    ``metric`` names a number of its evaluation, higher is better; the other options are those of
    :func:`tamegrad.watch`.
    """

    def __init__(
        self,
        mode: str = "observe",
        *,
        max_norm: float | None = None,
        metric: str | None = None,
        **options: Any,
    ) -> None:
        self._mode = mode
        self._max_norm = max_norm
        self._metric = metric
        self._options = options
        self.guard: Guard | None = None

    def diagnosis(self) -> Diagnosis:
        """What was seen so far; an error before the run has begun."""
        if self.guard is None:
            raise RuntimeError("the run has not begun: there is nothing to diagnose")
        return self.guard.diagnosis()

    def on_train_begin(
        self, args, state, control, model=None, optimizer=None, **kwargs: Any
    ) -> None:
        if optimizer is None:
            return
        # accelerate wraps the optimizer; the hooks belong to the one inside.
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        options = {"total_steps": state.max_steps or None, **self._options}
        self.guard = watch(model, optimizer, self._mode, **options)

    def on_pre_optimizer_step(self, args, state, control, **kwargs: Any) -> None:
        if self.guard is not None and self._max_norm is not None:
            self.guard.clip_(self._max_norm)

    def on_log(self, args, state, control, logs=None, **kwargs: Any) -> None:
        if self.guard is not None and logs and "loss" in logs:
            self.guard.log(loss=float(logs["loss"]))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs: Any) -> None:
        if self.guard is not None and metrics and self._metric in metrics:
            self.guard.log(metric=float(metrics[self._metric]))

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        if self.guard is not None and self.guard.should_stop:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs: Any) -> None:
        if self.guard is not None:
            self.guard.detach()
