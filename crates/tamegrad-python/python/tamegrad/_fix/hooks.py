"""Hooks at the steps of an objective's optimizers, in the order in which a trial needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from .._rate import put

Told = Callable[[torch.optim.Optimizer], None]


class RateRule:
    """Sets the learning rate of every group for the time of a step: no scheduler sees it."""

    def __init__(self, rule: Callable[[float, int], float]) -> None:
        self._rule = rule
        self._kept: list[tuple[dict, float]] = []
        self._steps: dict[int, int] = {}

    def set(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the step."""
        step = self._steps.get(id(optimizer), 0)
        self._steps[id(optimizer)] = step + 1
        for group in optimizer.param_groups:
            rate = float(group["lr"])
            self._kept.append((group, rate))
            put(group, self._rule(rate, step))

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """After the step."""
        for group, rate in reversed(self._kept):
            put(group, rate)
        self._kept = []


def attach_before(optimizers: Iterable[torch.optim.Optimizer], calls: Iterable[Told]) -> None:
    """Has ``calls`` made before each step."""
    for optimizer in optimizers:
        for call in calls:
            optimizer.register_step_pre_hook(lambda o, args, kwargs, call=call: call(o))


def attach_after(optimizers: Iterable[torch.optim.Optimizer], calls: Iterable[Told]) -> None:
    """Has ``calls`` made after each step."""
    for optimizer in optimizers:
        for call in calls:
            optimizer.register_step_post_hook(lambda o, args, kwargs, call=call: call(o))
