"""What the tests share: small models, data and runs whose chance is scripted."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

import tamegrad

torch.set_num_threads(1)


class Exp(nn.Module):
    """exp(x): harmless for small inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)


class Switch(nn.Module):
    """Lets its input through, the object itself, until it is turned on."""

    on = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1e3 if self.on else x


def mlp(depth: int = 4, width: int = 32, seed: int = 0, activation=nn.Tanh) -> nn.Sequential:
    """A perceptron from 16 inputs to 4 classes."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(width if index else 16, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def batches(steps: int, seed: int = 1, size: int = 32):
    """Batches of a problem that a small model learns."""
    generator = torch.Generator().manual_seed(seed)
    true = torch.randn(16, 4, generator=generator)
    for _ in range(steps):
        x = torch.randn(size, 16, generator=generator)
        yield x, (x @ true).argmax(1)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02),
    "sgd-momentum": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=1e-3),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=False),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "adam-amsgrad": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5),
}


@dataclass
class Run:
    """A finished run."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    guard: Any
    losses: list[float]


def train(
    mode: str | None = "observe",
    *,
    steps: int = 60,
    model: nn.Module | None = None,
    optimizer: str = "adamw",
    at_step=None,
    clip: float | None = None,
    log_before: bool = False,
    **options: Any,
) -> Run:
    """Trains, bare without a mode; ``at_step(step, model, optimizer, x)`` may plant a fault and
    gives the inputs back."""
    model = model if model is not None else mlp()
    made = OPTIMIZERS[optimizer](model.parameters())
    guard = None
    if mode is not None:
        guard = tamegrad.watch(model, made, mode, strict=True, **options)
    losses = []
    for step, (x, y) in enumerate(batches(steps)):
        if at_step is not None:
            x = at_step(step, model, made, x)
        loss = nn.functional.cross_entropy(model(x), y)
        made.zero_grad()
        loss.backward()
        if guard is not None and log_before:
            guard.log(loss=loss)
        if clip is not None:
            if guard is not None:
                guard.clip_(clip)
            else:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        made.step()
        if guard is not None and not log_before:
            guard.log(loss=loss)
        losses.append(loss.item())
    return Run(model, made, guard, losses)


def state_bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[bytes]:
    """Parameters, buffers and optimizer state, to the bit."""
    tensors = [*model.state_dict().values()]
    for state in optimizer.state_dict()["state"].values():
        tensors += [value for _, value in sorted(state.items()) if isinstance(value, torch.Tensor)]
    return [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]


@pytest.fixture(autouse=True)
def quiet_alarms():
    """An alarm that a test means to raise is no noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=tamegrad.TamegradWarning)
        yield
