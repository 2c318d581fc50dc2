"""The mean over the batch in place of the sum: gradients are divided by the number of rows."""

from __future__ import annotations

from ..._optimizers import parameters_in
from ..change import CannotApply

KIND = "mean-loss"
FAMILY = "loop"


def apply(change, trial, model, optimizers) -> None:
    """Divides the gradients by the rows of the batch at hand."""
    if not trial.uses("batches"):
        raise CannotApply("take the batches from trial.batches(loader)")

    def divide(optimizer) -> None:
        for parameter in parameters_in(optimizer):
            if parameter.grad is not None:
                parameter.grad.div_(max(trial.rows, 1))

    trial.before_step(divide)
