"""Lightning: a callback that watches the optimizers of a module."""

from __future__ import annotations

from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback

from .._watch import watch
from ..diagnosis import Diagnosis
from ..guard import Guard


class TamegradCallback(Callback):
    """Watches a run from its first step to its last.

    ``metric`` names what the module logs of its validation, higher is better; the other options
    are those of :func:`tamegrad.watch`. The diagnosis is at ``callback.diagnosis()``.
    """

    def __init__(self, mode: str = "observe", *, metric: str | None = None, **options: Any) -> None:
        self._mode = mode
        self._metric = metric
        self._options = options
        self.guard: Guard | None = None

    def diagnosis(self) -> Diagnosis:
        """What was seen so far; an error before the run has begun."""
        if self.guard is None:
            raise RuntimeError("the run has not begun: there is nothing to diagnose")
        return self.guard.diagnosis()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        steps = trainer.estimated_stepping_batches
        options = {
            "scaler": scaler,
            "total_steps": int(steps) if steps != float("inf") else None,
            **self._options,
        }
        # Lightning passes its strategy's own optimizers; hooks belong to the real ones.
        optimizers = [getattr(o, "optimizer", o) for o in trainer.optimizers]
        self.guard = watch(pl_module, optimizers, self._mode, **options)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if self.guard is None:
            return
        outputs = trainer.callback_metrics
        if self._metric in outputs:
            self.guard.log(metric=outputs[self._metric])

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.guard is not None and self.guard.should_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.guard is not None:
            self.guard.detach()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.guard is not None:
            self.guard.detach()
