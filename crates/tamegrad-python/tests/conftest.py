"""What the tests share: small models, data and runs whose chance is scripted."""

from __future__ import annotations

import gc
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


def watched(
    model: nn.Module, mode: str | None = "observe", kind=torch.optim.SGD, lr=0.02, **options
):
    """An optimizer, and the guard that watches its steps; none without a mode."""
    optimizer = kind(model.parameters(), lr=lr)
    options = {"strict": True, **options}
    return optimizer, tamegrad.watch(model, optimizer, mode, **options) if mode else None


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(x), y)


def learn(loss, optimizer, guard=None, *, clip: float | None = None, log_before=True) -> None:
    """Takes a step down a loss, which the guard is told of before or after."""
    optimizer.zero_grad()
    loss.backward()
    if guard is not None and log_before:
        guard.log(loss=loss)
    if clip is not None and guard is not None:
        guard.clip_(clip)
    elif clip is not None:
        nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], clip)
    optimizer.step()
    if guard is not None and not log_before:
        guard.log(loss=loss)


def times(factor: float, at: int):
    """For ``at_step``: multiplies the inputs of one step."""
    return lambda step, model, optimizer, x: x * factor if step == at else x


def loop(model, optimizer, guard=None, *, steps=30, seed=1, at_step=None, **how) -> list[float]:
    """The plain loop; ``at_step(step, model, optimizer, x)`` may plant a fault and gives the inputs
    back. Gives the losses."""
    losses = []
    for step, (x, y) in enumerate(batches(steps, seed)):
        if at_step is not None:
            x = at_step(step, model, optimizer, x)
        loss = loss_of(model, x, y)
        learn(loss, optimizer, guard, **how)
        losses.append(loss.item())
    return losses


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
    """Trains, bare without a mode; ``at_step`` is that of ``loop``. The loss is logged after the step
    unless ``log_before``."""
    model = model if model is not None else mlp()
    made = OPTIMIZERS[optimizer](model.parameters())
    guard = tamegrad.watch(model, made, mode, strict=True, **options) if mode else None
    how = {"at_step": at_step, "clip": clip, "log_before": log_before}
    return Run(model, made, guard, loop(model, made, guard, steps=steps, **how))


def state_bits(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[bytes]:
    """Parameters, buffers and optimizer state, to the bit."""
    tensors = [*model.state_dict().values()]
    for state in optimizer.state_dict()["state"].values():
        tensors += [value for _, value in sorted(state.items()) if isinstance(value, torch.Tensor)]
    return [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]


def is_finite(model: nn.Module) -> bool:
    return all(bool(torch.isfinite(parameter).all()) for parameter in model.parameters())


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def alarms(guard) -> list[str]:
    return [finding.sign for finding in guard.findings() if finding.severity == "alarm"]


def acted(guard) -> list[tuple[int, str]]:
    """The actions of a guard, each with its step."""
    return [(step, action.action) for step, action in guard.actions()]


@pytest.fixture(params=["observe", "protect"])
def mode(request):
    return request.param


@pytest.fixture
def told(quiet_alarms):
    """Gives what tamegrad has said since the test began."""
    ours = tamegrad.TamegradWarning
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield lambda: [str(w.message) for w in said if issubclass(w.category, ours)]


@pytest.fixture(autouse=True)
def quiet_alarms():
    """An alarm that a test means to raise is no noise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=tamegrad.TamegradWarning)
        yield


@pytest.fixture(autouse=True)
def _anomaly_mode_is_left():
    """No guard leaves torch's anomaly mode on, once what the loop has made is gone."""
    yield
    if torch.is_anomaly_enabled():
        gc.collect()
        is_left = not torch.is_anomaly_enabled()
        torch.set_anomaly_enabled(False, True)
        assert is_left, "the anomaly mode of torch"
