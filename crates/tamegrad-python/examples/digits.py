"""A deep perceptron on handwritten digits: it explodes, is explained, and is saved.

    python examples/digits.py path/to/digits

Trains the same network observed and protected. At step 300 one layer in the middle overflows, a
fault that nobody tells the guard.
"""

from __future__ import annotations

import gzip
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import tamegrad

STEPS = 600


class Square(nn.Module):
    """The identity, until ``on``: then it overflows, x |x| times 1e38."""

    on = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.abs() * 1e38 if self.on else x


def digits(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """8x8 images and their labels, from the comma-separated UCI data set."""
    rows = []
    for path in sorted(folder.glob("*digits*.csv*")):
        opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
        with opened as file:
            for line in file:
                fields = line.strip().split(",")
                if len(fields) == 65 and fields[0].strip().isdigit():
                    rows.append([float(field) for field in fields])
    table = torch.tensor(rows)
    return table[:, :64] / 16.0 - 0.3, table[:, 64].long()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for index in range(12):
        layers += [nn.Linear(64, 64), nn.ReLU()]
        if index == 6:
            layers.append(Square())
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
    return nn.Sequential(*layers, nn.Linear(64, 10))


def train(mode: str, x: torch.Tensor, y: torch.Tensor) -> tuple[float, tamegrad.Guard]:
    """Held-out accuracy at the end, and the guard."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    guard = tamegrad.watch(model, optimizer, mode, total_steps=STEPS)
    held = len(x) * 4 // 5
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        if step in (300, 301):
            for layer in model:
                if isinstance(layer, Square):
                    layer.on = step == 300
        chosen = torch.randint(held, (64,), generator=generator)
        loss = nn.functional.cross_entropy(model(x[chosen]), y[chosen])
        optimizer.zero_grad()
        guard.log(loss=loss)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = float((model(x[held:]).argmax(1) == y[held:]).float().mean())
    return accuracy, guard


def main() -> None:
    default = Path(__file__).resolve().parents[2] / "tamegrad-lab" / "data"
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    x, y = digits(folder)
    warnings.simplefilter("ignore", tamegrad.TamegradWarning)
    observed, guard = train("observe", x, y)
    print(guard.diagnosis())
    protected, _ = train("protect", x, y)
    print(f"held-out accuracy: {observed:.3f} observed, {protected:.3f} protected")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
