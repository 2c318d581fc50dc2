"""An L2 penalty on the weights, by the gradient that it would have."""

from __future__ import annotations

from ..._optimizers import parameters_in

KIND = "l2-penalty"
FAMILY = "regularise"


def apply(change, trial, model, optimizers) -> None:
    """Adds the gradient of ``strength`` times the sum of the squared weights of all matrices."""

    def add(optimizer) -> None:
        for parameter in parameters_in(optimizer):
            if parameter.grad is not None and parameter.dim() >= 2:
                parameter.grad.add_(2.0 * parameter.detach(), alpha=change["strength"])

    trial.before_step(add)
