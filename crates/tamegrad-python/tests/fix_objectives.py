"""Objectives for the tests of ``tamegrad.fix``: a small perceptron with one fault at a time."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

ROWS, EPOCHS, BATCH = 512, 6, 32


def data(seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Four clusters in 8 dimensions: training, validation and test rows."""
    generator = torch.Generator().manual_seed(seed)
    centres = 1.5 * torch.randn(4, 8, generator=generator)
    y = torch.randint(4, (3 * ROWS,), generator=generator)
    return centres[y] + torch.randn(3 * ROWS, 8, generator=generator), y


def network(depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(24 if index else 8, 24), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(24, 4))


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return float((model(x).argmax(1) == y).float().mean())


def train(
    trial, *, rate=0.05, momentum=0.9, raises_at=None, splits=("validation", "test"), nan=False
):
    """The usual loop."""
    x, y = data()
    if nan:
        x[5:ROWS:100, 2] = math.nan
    rows = torch.utils.data.TensorDataset(x[:ROWS], y[:ROWS])
    loader = torch.utils.data.DataLoader(rows, trial.batch_size(BATCH), shuffle=True)
    model = network(trial.depth(3))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.rate(rate), momentum=momentum)
    model, optimizer = trial.prepare(model, optimizer)
    for step in range(trial.epochs(EPOCHS)):
        for images, labels in trial.batches(loader):
            loss = nn.functional.cross_entropy(model(images), labels)
            trial.report(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if raises_at is not None and trial.changes and step == raises_at:
            raise ValueError("the disk is full")
    parts = {"validation": slice(ROWS, 2 * ROWS), "test": slice(2 * ROWS, 3 * ROWS)}
    for split in splits:
        trial.report(metric=accuracy(model, x[parts[split]], y[parts[split]]), split=split)


healthy = train
rate_too_high = functools.partial(train, rate=6.0)


def too_high(trial):
    """A function of the module, as worker processes and the command need one."""
    train(trial, rate=6.0)


def raises(trial):
    """Raises in every trial with a change."""
    train(trial, rate=6.0, raises_at=0)


def broken(trial):
    """Raises at once."""
    raise KeyError("no such table")
