"""A deep perceptron on handwritten digits that explodes: the least change that mends it is searched.

    python examples/fix_digits.py
    python -m tamegrad fix examples/fix_digits.py:objective

A usual training script, with six lines that name `trial`. Half of its layers have an activation that grows
faster than its input, which nobody tells the search.
"""

from __future__ import annotations

from pathlib import Path

import torch
from digits import digits
from torch import nn

import tamegrad

DATA = Path(__file__).resolve().parents[2] / "tamegrad-lab" / "data"


class Square(nn.Module):
    """x |x|: harmless while x is small."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.abs()


def network(depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(64, 64), Square() if index >= depth // 2 else nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2].weight)
    return nn.Sequential(*layers, nn.Linear(64, 10))


@torch.no_grad()
def accuracy(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    return float((model(x).argmax(1) == y).float().mean())


def objective(trial: tamegrad.Trial) -> None:
    x, y = digits(DATA)
    train, held = len(x) * 6 // 10, len(x) * 8 // 10
    rows = torch.utils.data.TensorDataset(x[:train], y[:train])
    loader = torch.utils.data.DataLoader(rows, batch_size=64, shuffle=True)
    model = network(trial.depth(12))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.rate(0.02), momentum=0.9)
    model, optimizer = trial.prepare(model, optimizer)
    for _ in range(trial.epochs(12)):
        for images, labels in trial.batches(loader):
            loss = nn.functional.cross_entropy(model(images), labels)
            trial.report(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trial.report(metric=accuracy(model, x[train:held], y[train:held]))
    trial.report(metric=accuracy(model, x[held:], y[held:]), split="test")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(tamegrad.fix(objective, budget=3.0))
