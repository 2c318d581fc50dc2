"""The learning rate lowered for the time of one step, so that no scheduler ever sees it."""

from __future__ import annotations

from typing import Any

import torch


class Rate:
    """Multiplies the rate of every parameter group before a step and puts it back after it.

    Schedulers read and write ``group["lr"]`` between steps, and some compute the next rate from
    the last: they find it as they left it.
    """

    def __init__(self) -> None:
        self._changed: list[tuple[dict[str, Any], Any]] = []

    def lower(self, optimizer: torch.optim.Optimizer, factor: float) -> None:
        """Multiplies the rates of an optimizer by ``factor`` until ``restore``."""
        if factor == 1.0:
            return
        for group in optimizer.param_groups:
            rate = group["lr"]
            if isinstance(rate, torch.Tensor):
                self._changed.append((group, rate.clone()))
                rate.mul_(factor)
            else:
                self._changed.append((group, rate))
                group["lr"] = rate * factor

    def restore(self) -> None:
        """Puts all rates back."""
        for group, rate in reversed(self._changed):
            put(group, rate)
        self._changed = []


def put(group: dict[str, Any], rate: Any) -> None:
    """Gives a parameter group its rate back, in the tensor that holds it where it is one."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].copy_(rate)
    else:
        group["lr"] = rate


def rate_of(optimizers: list[torch.optim.Optimizer]) -> float | None:
    """The largest learning rate of all parameter groups."""
    largest = None
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = group.get("lr")
            if rate is not None and (largest is None or rate > largest):
                largest = rate
    return None if largest is None else float(largest)
