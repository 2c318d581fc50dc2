"""What the loops share: the rate that is raised, what a run leaves, and what it warned of."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import tamegrad

torch.set_num_threads(1)


@dataclass
class Outcome:
    """What a run has left."""

    bits: dict[str, Any]
    """Everything that a guard must not change, by name; tensors as bytes."""
    losses: list[float]
    """The loss of each step of the optimizer, or of what stands for it."""
    parameters: list[torch.Tensor]
    guards: list[Any]
    warned: list[str] = field(default_factory=list)
    """Every warning, as ``Category: text``, and what tamegrad logged."""


def bytes_of(tensor: torch.Tensor) -> bytes:
    """A tensor's elements, whatever they are."""
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def outcome(
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    losses: Iterable[float],
    guards: Iterable[Any],
    **more: Any,
) -> Outcome:
    """Gathers parameters, gradients, buffers, optimizer state, rates, losses and the chance."""
    bits: dict[str, Any] = {"chance": bytes_of(torch.get_rng_state()), "losses": repr(list(losses))}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            bits[f"{name}.{key}"] = bytes_of(value)
        for key, parameter in module.named_parameters():
            gradient = parameter.grad
            bits[f"{name}.{key}.grad"] = None if gradient is None else bytes_of(gradient)
    for name, optimizer in optimizers.items():
        state = optimizer.state_dict()
        bits[f"{name} rates"] = repr([group.get("lr") for group in state["param_groups"]])
        for index, entries in state["state"].items():
            for key, value in entries.items():
                is_tensor = isinstance(value, torch.Tensor)
                bits[f"{name}[{index}].{key}"] = bytes_of(value) if is_tensor else repr(value)
    bits.update({key: repr(value) for key, value in more.items()})
    parameters = [p.detach() for module in modules.values() for p in module.parameters()]
    kept = [guard for guard in guards if guard is not None]
    return Outcome(bits, list(losses), parameters, kept)


class Records(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(f"{record.levelname}: {record.name}: {record.getMessage()}")


def recorded(run: Callable[[], Outcome]) -> Outcome:
    """Runs and keeps all that was warned of, and what tamegrad logged."""
    logger, records = logging.getLogger("tamegrad"), Records()
    logger.addHandler(records)
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            made = run()
    finally:
        logger.removeHandler(records)
    texts = [f"{warning.category.__name__}: {warning.message}" for warning in told]
    made.warned = texts + records.kept
    return made


def differing(one: Outcome, other: Outcome) -> list[str]:
    """The names of what is not the same in two runs."""
    names = one.bits.keys() | other.bits.keys()
    missing = object()
    return sorted(n for n in names if one.bits.get(n, missing) != other.bits.get(n, missing))


def of_tamegrad(made: Outcome) -> list[str]:
    """The warnings that come from tamegrad."""
    return [text for text in made.warned if "tamegrad" in text.lower()]


def exploded(losses: list[float], healthy: list[float]) -> bool:
    """Whether a loss is not finite, or far above all losses of the healthy run."""
    ceiling = 2.0 * max(healthy)
    return any(not math.isfinite(loss) or loss > ceiling for loss in losses)


def watch(mode: str | None, *arguments: Any, **options: Any) -> Any:
    """A guard as a user makes it, none for a bare run."""
    return tamegrad.watch(*arguments, mode=mode, **options) if mode else None


def raise_rate(optimizer: torch.optim.Optimizer, factor: float, scheduler: Any = None) -> None:
    """Multiplies the learning rate, and what a scheduler makes it of."""
    for group in optimizer.param_groups:
        group["lr"] *= factor
        if "initial_lr" in group:
            group["initial_lr"] *= factor
    if scheduler is not None:
        scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def markov_text(length: int, vocabulary: int, seed: int = 7) -> torch.Tensor:
    """Tokens of which each follows from the one before, mostly."""
    generator = torch.Generator().manual_seed(seed)
    follows = torch.randperm(vocabulary, generator=generator).tolist()
    stays = (torch.rand(length, generator=generator) < 0.8).tolist()
    others = torch.randint(vocabulary, (length,), generator=generator).tolist()
    tokens = [0]
    for stay, other in zip(stays[1:], others[1:], strict=True):
        tokens.append(follows[tokens[-1]] if stay else other)
    return torch.tensor(tokens)


def images(count: int, size: int, classes: int = 4, noise: float = 0.7, seed: int = 5):
    """Images of some classes, each a pattern under noise, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 1, size, size, generator=generator)
    labels = torch.randint(classes, (count,), generator=generator)
    blurs = torch.randn(count, 1, size, size, generator=generator)
    return patterns[labels] + noise * blurs, labels
