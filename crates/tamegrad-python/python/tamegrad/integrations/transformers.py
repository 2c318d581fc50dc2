"""Transformers: a callback that watches a Trainer's optimizer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ._holder import GuardHolder

FILE = "tamegrad.pt"
"""The guard's state in the folder of a checkpoint."""


class TamegradCallback(GuardHolder, TrainerCallback):
    """Watches a run from its first step to its last; its state is saved with the Trainer's checkpoints.

    The Trainer clips before the optimizer's step, so the guard sees norms of at most
    ``max_grad_norm``: set that to 0 and pass ``max_norm`` here to see and clip the true norms.
    ``metric`` is the name of an evaluation metric, higher is better; the other options are those of
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
        super().__init__(mode, metric, options)
        self._max_norm = max_norm

    def on_train_begin(
        self, args, state, control, model=None, optimizer=None, **kwargs: Any
    ) -> None:
        if optimizer is None:
            return
        # accelerate wraps the optimizer; the hooks belong to the one inside.
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        if state.global_step > 0:
            self._saved = _saved_state(args, state)
        self._begin(model, optimizer, total_steps=state.max_steps or None)

    def on_save(self, args, state, control, **kwargs: Any) -> None:
        folder = _folder(args, state)
        if self.guard is not None and state.is_world_process_zero and folder.is_dir():
            torch.save(self.guard.state_dict(), folder / FILE)

    def on_pre_optimizer_step(self, args, state, control, **kwargs: Any) -> None:
        if self.guard is not None and self._max_norm is not None:
            self.guard.clip_(self._max_norm)

    def on_log(self, args, state, control, logs=None, **kwargs: Any) -> None:
        # The mean since the last report: all there is where the Trainer makes the loss itself.
        if self.guard is not None and not self.guard.sees_loss and logs and "loss" in logs:
            self.guard.log(loss=float(logs["loss"]))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs: Any) -> None:
        self._log_metric(metrics)

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        if self.guard is not None and self.guard.should_stop:
            control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs: Any) -> None:
        self._end()


class TrialCallback(TrainerCallback):
    """Makes a Trainer's ``train`` a trial of :func:`tamegrad.fix`.

    ``metric`` is the name of an evaluation metric, with its prefix; the Trainer draws its own batches, so
    changes to the data are only given as advice::

        def objective(trial):
            args = TrainingArguments(learning_rate=trial.rate(5e-5), seed=trial.seed, ...)
            callbacks = [TrialCallback(trial, metric="eval_accuracy")]
            trainer = Trainer(model, args, train_dataset=train, callbacks=callbacks, ...)
            trainer.train()
            trainer.evaluate(validation)
            trial.report(metric=trainer.evaluate(test, metric_key_prefix="test")["test_accuracy"], split="test")
    """

    def __init__(self, trial: Any, *, metric: str | None = None) -> None:
        trial.ends_itself = True
        self._trial = trial
        self._metric = metric

    def on_train_begin(
        self, args, state, control, model=None, optimizer=None, **kwargs: Any
    ) -> None:
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        self._trial.planned(state.max_steps)
        self._trial.prepare(model, optimizer)

    def on_step_end(self, args, state, control, **kwargs: Any) -> None:
        if self._trial.is_over:
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **kwargs: Any) -> None:
        if logs and "loss" in logs and not self._trial.guard.sees_loss:
            self._trial.report(float(logs["loss"]))

    def on_evaluate(self, args, state, control, metrics=None, **kwargs: Any) -> None:
        if metrics and self._metric in metrics:
            self._trial.report(metric=metrics[self._metric])


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"


def _saved_state(args: Any, state: Any) -> dict[str, Any] | None:
    named = args.resume_from_checkpoint
    folders = [Path(named)] if isinstance(named, str) else []
    for folder in [*folders, _folder(args, state)]:
        if (folder / FILE).is_file():
            return torch.load(folder / FILE, weights_only=True)
    warnings.warn(
        f"tamegrad: the run resumes at step {state.global_step}, but {_folder(args, state) / FILE} is "
        "missing, so nothing is known about the steps before",
        stacklevel=2,
    )
    return None
