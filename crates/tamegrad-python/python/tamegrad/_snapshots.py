"""Snapshots of the run to rewind to, in memory that is used again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ._buffers import CalmBuffers
from ._state import StateCopy, random_state, set_random_state


class Snapshots:
    """The latest snapshots: parameters, buffers, random state, and the states of the scheduler and of
    the ``GradScaler`` where they are known.

    An optimizer whose state was empty before its first step makes it anew after a rewind, whose
    learning rate warms up as at a start: that state is not copied. Only one that had a state when the
    guard was attached (a resumed run, Adagrad) gets it back.
    """

    def __init__(
        self,
        parameters: list[torch.Tensor],
        optimizers: list[torch.optim.Optimizer],
        model: nn.Module,
        scheduler: Any,
        scaler: Any,
        on_rewind: Callable[[int], None] | None,
    ) -> None:
        self._fresh = [optimizer for optimizer in optimizers if not optimizer.state]
        old = [optimizer for optimizer in optimizers if optimizer.state]
        self._source = (parameters, old)
        self._model = model
        self._optimizers = optimizers
        self._stateful = [part for part in (scheduler, scaler) if part is not None]
        self._on_rewind = on_rewind
        self._kept: list[tuple[int, StateCopy]] = []
        self._free: list[StateCopy] = []
        self.most = 1

    def take(self, step: int) -> None:
        """Keeps the state before a step; the oldest makes room for it."""
        if len(self._kept) >= self.most:
            self._free.append(self._kept.pop(0)[1])
        state = self._free.pop() if self._free else StateCopy(*self._source)
        state.take()
        buffers = state.extra.get("buffers") or CalmBuffers(self._model)
        buffers.keep()
        state.extra = {
            "buffers": buffers,
            "random": random_state(),
            "rates": [[_copied(g["lr"]) for g in o.param_groups] for o in self._optimizers],
            "stateful": [copy.deepcopy(part.state_dict()) for part in self._stateful],
        }
        self._kept.append((step, state))

    def forget(self) -> None:
        """Drops all snapshots; their memory is used again."""
        self._free += [state for _, state in self._kept]
        self._kept = []

    def rewind(self, step: int) -> int | None:
        """Goes back to the latest snapshot of at most ``step``; gives its step."""
        while self._kept and self._kept[-1][0] > step:
            self._free.append(self._kept.pop()[1])
        if not self._kept:
            return None
        step, state = self._kept[-1]
        state.restore()
        state.extra["buffers"].restore()
        for optimizer in self._fresh:
            optimizer.state.clear()
        set_random_state(state.extra["random"])
        if self._stateful:
            for part, saved in zip(self._stateful, state.extra["stateful"], strict=True):
                part.load_state_dict(copy.deepcopy(saved))
            for optimizer, rates in zip(self._optimizers, state.extra["rates"], strict=True):
                for group, rate in zip(optimizer.param_groups, rates, strict=False):
                    if isinstance(group["lr"], torch.Tensor):
                        group["lr"].copy_(rate)
                    else:
                        group["lr"] = rate
        if self._on_rewind is not None:
            self._on_rewind(step)
        return step


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, torch.Tensor) else value
