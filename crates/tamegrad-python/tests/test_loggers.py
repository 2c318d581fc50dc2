"""Loggers write what was measured, and only when asked."""

from __future__ import annotations

import math

import pytest
from conftest import train

from tamegrad import loggers


class Log:
    """Stands for a writer, a run or a client: notes what it is told."""

    def __init__(self):
        self.told = []

    def add_scalar(self, name, value, step):
        self.told.append((step, name, value))

    def add_histogram(self, name, values, step):
        self.told.append((step, name, len(values)))

    def log(self, values, commit):
        self.told.append((values, commit))

    def log_metrics(self, values, step):
        self.told.append((step, values))


def test_tensorboard_gets_scalars_and_a_histogram_every_so_often():
    log = Log()
    run = train("observe", steps=11, loggers=[loggers.tensorboard(log)], log_every=5)
    steps = sorted({step for step, *_ in log.told})
    assert steps == [0, 5, 10]
    at_ten = {name: value for step, name, value in log.told if step == 10}
    assert at_ten["tamegrad/gradient_norm"] == pytest.approx(run.guard.gradient_norm)
    # Logged after the step, the loss is that of the step before.
    assert at_ten["tamegrad/loss"] == pytest.approx(run.losses[9])
    assert at_ten["tamegrad/gradient_norms"] == 10


def test_wandb_and_mlflow_get_metrics():
    run, client = Log(), Log()
    trained = train("observe", steps=2, loggers=[loggers.wandb(run), loggers.mlflow(client)])
    values, commit = run.told[1]
    assert not commit
    norms = [value for name, value in values.items() if name.startswith("tamegrad/norm/")]
    assert math.hypot(*norms) == pytest.approx(trained.guard.gradient_norm)
    step, metrics = client.told[1]
    assert step == 1
    assert sorted(metrics) == ["tamegrad/gradient_norm", "tamegrad/loss", "tamegrad/nonfinite"]
