"""What a kind is: a way in which runs fail, or look odd and are healthy, on several models and optimizers.

A kind is a function ``(run) -> None`` under the decorator :func:`failing` or :func:`healthy` that
changes a calm :class:`Run` into one of its kind. A failing kind does its harm at steps from
``run.fault`` on, or at once if ``run.broken``; in the undisturbed twin of the run ``fault`` is never
reached and ``broken`` is false.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from kind_models import TASKS, Task
from torch import nn

Batch = tuple[torch.Tensor, torch.Tensor]
Backward = Callable[..., None]
"""``backward(loss, scale=1, part=0)``: what a loop calls in place of ``(loss * scale).backward()``."""
Update = Callable[[int, Backward, Callable[..., None]], None]
"""One step of a loop of its own: ``update(step, backward, take_step)``; it clears the gradients."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, rate: torch.optim.SGD(p, lr=rate, momentum=0.9),
    "nesterov": lambda p, rate: torch.optim.SGD(p, lr=rate, momentum=0.9, nesterov=True),
    "adam": lambda p, rate: torch.optim.Adam(p, lr=rate / 20),
    "adamw": lambda p, rate: torch.optim.AdamW(p, lr=rate / 20),
    "adagrad": lambda p, rate: torch.optim.Adagrad(p, lr=rate),
    "lbfgs": lambda p, rate: torch.optim.LBFGS(p, max_iter=4, line_search_fn="strong_wolfe"),
    "rmsprop": lambda p, rate: torch.optim.RMSprop(p, lr=rate / 40),
}


@dataclass
class Run:
    """A run that is ready to train; a calm one, until its kind has changed it."""

    task: Task
    optimizer_name: str
    seed: int
    broken: bool
    """Whether the fault is in it; false in the twin."""
    fault: float
    """The first step of the fault, infinite in the twin."""
    steps: int = 250
    size: int = 32
    """Samples in a batch."""
    optimizer: torch.optim.Optimizer = field(init=False)
    parts: list[tuple[nn.Module, torch.optim.Optimizer]] = field(init=False)
    """What is watched, each with a guard of its own: usually the model alone."""
    before: list[Callable[[int], None]] = field(default_factory=list)
    """What happens before a step."""
    after: list[Callable[[int], None]] = field(default_factory=list)
    """What happens after a step."""
    loss: Callable[[Batch], torch.Tensor] = field(init=False)
    batch: Callable[[int], Batch] = field(init=False)
    update: Update | None = None
    clip: float | None = None
    """The limit of the loop's own ``clip_grad_norm_``."""
    scheduler: Any = None
    scaler: Any = None
    layer: str | None = None
    """The layer that is to blame, where one is."""
    score: Callable[[], float] | None = None
    """What has been learned, from 0, a constant answer, to 1; without it the task's own score."""
    loss_is_log: bool = True
    """Whether a loss is in nats; otherwise its logarithm is."""

    def __post_init__(self) -> None:
        self.loss_is_log = self.task.classes
        self.loss = lambda batch: self.task.loss(self.model(batch[0]), batch[1])
        self.batch = lambda step: self.task.draw(self.size)
        self.use(self.task.model)

    @property
    def model(self) -> nn.Module:
        return self.task.model

    def use(self, model: nn.Module, rate: float = 1.0) -> None:
        """Another model in place of the task's, or the same with another rate."""
        self.task.model = model
        self.optimize(
            OPTIMIZERS[self.optimizer_name](list(model.parameters()), self.task.rate * rate)
        )

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.parts = [(self.model, optimizer)]

    def schedule(self, factor: Callable[[int], float]) -> None:
        """The learning rate is multiplied by a factor for each step."""
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)

    def change_batch(self, change: Callable[[int, Batch], Batch]) -> None:
        """Changes each batch; ``change(step, batch)``."""
        draw = self.batch
        self.batch = lambda step: change(step, draw(step))

    def layers(self) -> list[tuple[str, nn.Module]]:
        """The layers with a weight matrix, in order, without those that only normalise or embed."""
        kinds = (nn.Linear, nn.Conv2d, nn.RNNBase, nn.RNNCellBase)
        return [(name, m) for name, m in self.model.named_modules() if isinstance(m, kinds)]

    def middle(self) -> tuple[str, nn.Module]:
        layers = self.layers()
        return layers[len(layers) // 2]


@dataclass(frozen=True)
class Kind:
    """A way in which runs fail, or look odd and are healthy."""

    name: str
    half: str
    """``a`` or ``b``, after the file."""
    fails: bool
    settings: tuple[tuple[str, str], ...]
    """Model and optimizer of each run."""
    fault: int
    """The step of the fault; 0 if it is there from the start."""
    build: Callable[[Run], None]

    def run(self, model: str, optimizer: str, seed: int, broken: bool) -> Run:
        """The run with one seed, or its twin."""
        torch.manual_seed(seed)
        broken = broken and self.fails
        task = TASKS[model](torch.Generator().manual_seed(1000 + seed))
        run = Run(task, optimizer, seed, broken, self.fault if broken else math.inf)
        self.build(run)
        return run


KINDS: list[Kind] = []


def failing(name: str, *, on: str, fault: int = 0) -> Callable:
    """Registers a kind that fails. ``on`` lists ``model/optimizer`` pairs; ``fault`` is its step."""
    return _register(name, on, fault, fails=True)


def healthy(name: str, *, on: str) -> Callable:
    """Registers a kind that is healthy."""
    return _register(name, on, 0, fails=False)


def _register(name: str, on: str, fault: int, fails: bool) -> Callable:
    settings = tuple(tuple(pair.split("/")) for pair in on.split())

    def register(build: Callable[[Run], None]) -> Callable[[Run], None]:
        if any(known.name == name for known in KINDS):
            raise ValueError(f"kind: got {name!r} twice, want a name of its own")
        half = build.__module__.rpartition("_")[2]
        KINDS.append(Kind(name, half, fails, settings, fault, build))
        return build

    return register
