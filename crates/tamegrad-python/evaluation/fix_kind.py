"""What the objectives of the evaluation of fixes share: their list, data, and the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

EPOCHS = 8
BATCH = 32
TRAIN, HELD = 1024, 2048
"""Rows to train on, and of validation and test part each."""

KINDS: dict[str, Callable[[Any, bool], None]] = {}


def kind(name: str) -> Callable[[Callable[[Any, bool], None]], Callable[[Any, bool], None]]:
    """Registers an objective ``(trial, fault)`` under ``fault/architecture``."""

    def register(objective: Callable[[Any, bool], None]) -> Callable[[Any, bool], None]:
        if name in KINDS:
            raise ValueError(f"kind: got {name!r} twice, want a name of its own")
        KINDS[name] = objective
        return objective

    return register


@dataclass
class Table:
    """Training, validation and test rows, in this order."""

    x: torch.Tensor
    y: torch.Tensor
    batch: int
    seed: int

    def loader(self) -> torch.utils.data.DataLoader:
        rows = torch.utils.data.TensorDataset(self.x[:TRAIN], self.y[:TRAIN])
        generator = torch.Generator().manual_seed(self.seed)
        return torch.utils.data.DataLoader(rows, self.batch, shuffle=True, generator=generator)

    def held(self, part: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows = slice(TRAIN + part * HELD, TRAIN + (part + 1) * HELD)
        return self.x[rows], self.y[rows]


def _rows() -> int:
    return TRAIN + 2 * HELD


def classes(trial: Any, image: bool = False, scale: Any = 1.0) -> Table:
    """Six classes of two clusters each, of which a few overlap; as images of 8x8, by the pattern that
    they hold twice."""
    g = torch.Generator().manual_seed(700 + trial.seed)
    y = torch.randint(6, (_rows(),), generator=g)
    if image:
        patterns = torch.randn(6, 1, 3, 3, generator=g)
        x = torch.randn(_rows(), 1, 8, 8, generator=g)
        x[:, :, 1:4, 1:4] += 2.5 * patterns[y]
        x[:, :, 4:7, 4:7] += 2.5 * patterns[y]
    else:
        clusters = torch.randn(2, 6, 20, generator=g)
        which = torch.randint(2, (_rows(),), generator=g)
        x = clusters[which, y] + 0.9 * torch.randn(_rows(), 20, generator=g)
        x = x * scale
    return Table(x, y, trial.batch_size(BATCH), trial.seed)


def regression(trial: Any, scale: float) -> Table:
    """A smooth function of the inputs, with a little noise."""
    g = torch.Generator().manual_seed(800 + trial.seed)
    x = torch.randn(_rows(), 20, generator=g)
    hidden = torch.tanh(x @ torch.randn(20, 8, generator=g) / 4.0)
    y = hidden @ torch.randn(8, 1, generator=g) + 0.05 * torch.randn(_rows(), 1, generator=g)
    return Table(x, scale * (y + 1.0), trial.batch_size(BATCH), trial.seed)


def sequences(trial: Any, steps: int = 16) -> Table:
    """Sequences of 8 numbers a step; the class is which of the first four are larger on average."""
    g = torch.Generator().manual_seed(900 + trial.seed)
    x = torch.randn(_rows(), steps, 8, generator=g)
    y = torch.randint(4, (_rows(),), generator=g)
    x[:, :, :4] += 0.6 * torch.nn.functional.one_hot(y, 4)[:, None]
    return Table(x, y, trial.batch_size(BATCH), trial.seed)


class Net(nn.Module):
    """A deep perceptron with a forward of its own, with batch norm or without."""

    def __init__(self, depth: int, trial: Any, *, norm: bool, gain: float, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        layers = range(trial.depth(depth))
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in layers)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in layers) if norm else None
        self.last = nn.Linear(width, 6)
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight)
            layer.weight.data.mul_(gain)

    def forward(self, x):
        h = self.first(x)
        for index, layer in enumerate(self.hidden):
            h = layer(h)
            if self.norms is not None:
                h = self.norms[index](h)
            h = F.relu(h)
        return self.last(h)


def train(
    trial: Any,
    model: nn.Module,
    optimizer: Any,
    data: Table,
    *,
    at_step: Callable[[int], None] | None = None,
    reduction: str = "mean",
    clears: bool = True,
) -> None:
    """The loop, and the metrics at its end: accuracy, or the part of the variance that is explained."""
    model, optimizer = trial.prepare(model, optimizer)
    step = 0
    for _ in range(trial.epochs(EPOCHS)):
        for x, y in trial.batches(data.loader()):
            if at_step is not None:
                at_step(step)
            loss = loss_of(model(x), y, reduction)
            trial.report(loss)
            if clears:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    trial.report(metric=metric_of(model, *data.held(0)))
    trial.report(metric=metric_of(model, *data.held(1)), split="test")


def loss_of(output: torch.Tensor, y: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    if y.is_floating_point():
        return F.mse_loss(output, y, reduction=reduction)
    return F.cross_entropy(output, y, reduction=reduction)


@torch.no_grad()
def metric_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Accuracy, or the part of the variance that is explained; rows that are no numbers are left out."""
    model.eval()
    good = torch.isfinite(x).flatten(1).all(1)
    x, y = x[good], y[good]
    output = model(x)
    model.train()
    if y.is_floating_point():
        return float(1.0 - (output - y).square().mean() / y.var())
    return float((output.argmax(1) == y).float().mean())
