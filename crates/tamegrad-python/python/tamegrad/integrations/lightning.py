"""Lightning: a callback that watches the optimizers of a module."""

from __future__ import annotations

import functools
import inspect
from typing import Any

try:
    from lightning.pytorch.callbacks import Callback
except ImportError:
    from pytorch_lightning.callbacks import Callback

from ._holder import GuardHolder


class TamegradCallback(GuardHolder, Callback):
    """Watches a run from its first step to its last; its state is saved in Lightning's checkpoints.

    ``metric`` is the name of a validation metric that the module logs, higher is better; the other
    options are those of :func:`tamegrad.watch`. ``callback.diagnosis()`` returns the diagnosis.
    """

    def __init__(self, mode: str = "observe", *, metric: str | None = None, **options: Any) -> None:
        super().__init__(mode, metric, options)

    def state_dict(self) -> dict[str, Any]:
        return {} if self.guard is None else {"guard": self.guard.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._saved = state_dict.get("guard")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        steps = trainer.estimated_stepping_batches
        # Lightning passes its strategy's own optimizers; hooks belong to the real ones.
        optimizers = [getattr(o, "optimizer", o) for o in trainer.optimizers]
        self._begin(
            pl_module,
            optimizers,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            total_steps=int(steps) if steps != float("inf") else None,
            step_fn=functools.partial(_loss_of, trainer.precision_plugin.train_step_context),
        )

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        # A step that is optimized by hand would step again.
        if self.guard is not None and pl_module.automatic_optimization:
            self.guard.log(batch=(batch, batch_idx))

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        # With automatic optimization it comes with the optimizer's step.
        if self.guard is not None and not pl_module.automatic_optimization:
            self.guard.log(loss=loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self._log_metric(trainer.callback_metrics)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.guard is not None and self.guard.should_stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._end()


class TrialCallback(Callback):
    """Makes a Trainer's ``fit`` a trial of :func:`tamegrad.fix`.

    ``metric`` is the name of a validation metric that the module logs. Report the test metric yourself::

        def objective(trial):
            module = Net(rate=trial.rate(1e-3))
            callbacks = [TrialCallback(trial, metric="val_accuracy")]
            trainer = Trainer(max_epochs=trial.epochs(10), callbacks=callbacks)
            trainer.fit(module, trial.batches(train_loader), validation_loader)
            trial.report(metric=trainer.test(module, test_loader)[0]["test_accuracy"], split="test")
    """

    def __init__(self, trial: Any, *, metric: str | None = None) -> None:
        self._trial = trial
        self._metric = metric

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        optimizers = [getattr(o, "optimizer", o) for o in trainer.optimizers]
        self._trial.prepare(pl_module, optimizers)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        self._trial.report(loss)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        metric = trainer.callback_metrics.get(self._metric)
        # The sanity check before the first step is none of the trial's.
        if metric is not None and self._trial.guard is not None:
            self._trial.report(metric=metric)


def _loss_of(context: Any, module: Any, given: tuple[Any, int]) -> Any:
    """The loss of a batch by the module's ``training_step``, which logs nothing meanwhile and reaches no
    trainer: one that needs it raises, and is not repeated."""
    names = {"log": _log_nothing, "log_dict": _log_nothing, "_trainer": None}
    kept = {name: module.__dict__[name] for name in names if name in module.__dict__}
    module.__dict__.update(names)
    try:
        parameters = inspect.signature(module.training_step).parameters
        with context():
            return module.training_step(*given[: max(len(parameters), 1)])
    finally:
        for name in names.keys() - kept.keys():
            del module.__dict__[name]
        module.__dict__.update(kept)


def _log_nothing(*args: Any, **options: Any) -> None:
    """Takes the place of the module's ``log``."""
