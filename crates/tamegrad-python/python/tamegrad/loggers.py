"""Functions for ``watch(loggers=[...])`` that write what was measured to experiment trackers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Logger = Callable[[int, dict[str, Any]], None]


def tensorboard(writer: Any, *, histogram: bool = True, prefix: str = "tamegrad") -> Logger:
    """Writes scalars, and a histogram of the gradient norms of all tensors, to a ``SummaryWriter``."""

    def write(step: int, values: dict[str, Any]) -> None:
        for name, value in scalars(values, prefix).items():
            writer.add_scalar(name, value, step)
        norms = [norm for norm in values["norms"].values() if norm == norm]
        if histogram and norms:
            import numpy

            writer.add_histogram(f"{prefix}/gradient_norms", numpy.asarray(norms), step)

    return write


def wandb(run: Any, *, norms: bool = True, prefix: str = "tamegrad") -> Logger:
    """Logs metrics to a W&B run; with ``norms``, also the gradient norm of every tensor. They join the
    step's other metrics and do not end the step."""

    def write(step: int, values: dict[str, Any]) -> None:
        run.log({**scalars(values, prefix), **_norms(values, prefix, norms)}, commit=False)

    return write


def mlflow(client: Any = None, *, norms: bool = False, prefix: str = "tamegrad") -> Logger:
    """Logs metrics to the active MLflow run; ``client`` is the ``mlflow`` module unless another object
    with ``log_metrics`` is given."""

    def write(step: int, values: dict[str, Any]) -> None:
        target = client
        if target is None:
            import mlflow as target
        target.log_metrics({**scalars(values, prefix), **_norms(values, prefix, norms)}, step=step)

    return write


def scalars(values: dict[str, Any], prefix: str) -> dict[str, float]:
    """Loss, gradient norm and number of non-finite elements, if known."""
    names = ("loss", "gradient_norm", "nonfinite")
    return {f"{prefix}/{n}": float(values[n]) for n in names if values[n] is not None}


def _norms(values: dict[str, Any], prefix: str, wanted: bool) -> dict[str, float]:
    if not wanted:
        return {}
    return {f"{prefix}/norm/{name}": norm for name, norm in values["norms"].items() if norm == norm}
