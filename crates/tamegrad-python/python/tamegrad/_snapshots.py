"""Snapshots of the run to rewind to, in memory that is used again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from . import _rate
from ._buffers import CalmBuffers
from ._state import StateCopy, cloned, random_state, set_random_state
from ._watched import Watched


class Snapshots:
    """The latest snapshots of the run, and what the last good step has left in the modules' buffers.

    A snapshot holds parameters, buffers, random state, and the states of the scheduler and of
    the ``GradScaler`` where they are known.

    An optimizer whose state was empty before its first step makes it anew after a rewind, whose
    learning rate warms up as at a start: that state is not copied. Only one that had a state when the
    guard was attached (a resumed run, Adagrad) gets it back.
    """

    def __init__(
        self,
        watched: Watched,
        model: nn.Module,
        scheduler: Any,
        scaler: Any,
        on_rewind: Callable[[int], None] | None,
        *,
        most: int,
        keeps_calm: bool,
    ) -> None:
        self._watched = watched
        self._model = model
        self._stateful = [part for part in (scheduler, scaler) if part is not None]
        self._on_rewind = on_rewind
        self._most = most
        self._calm = CalmBuffers(model if keeps_calm else None)
        self.renew()

    def renew(self) -> None:
        """Begins anew, with the parameters and optimizers that are watched now."""
        optimizers = self._watched.optimizers
        self._fresh = [optimizer for optimizer in optimizers if not optimizer.state]
        self._old = [optimizer for optimizer in optimizers if optimizer.state]
        self._kept: list[tuple[int, StateCopy]] = []
        self._free: list[StateCopy] = []

    def keep_calm(self) -> None:
        """Keeps what the modules hold beside their parameters, as a good step has left it."""
        self._calm.keep()

    def restore_calm(self) -> None:
        """Puts back what was kept of that, for a step that is left out or undone."""
        self._calm.restore()

    def take(self, step: int) -> None:
        """Keeps the state before a step; the oldest makes room for it."""
        if len(self._kept) >= self._most:
            self._free.append(self._kept.pop(0)[1])
        state = self._free.pop() if self._free else StateCopy(self._watched.parameters, self._old)
        state.take()
        buffers = state.extra.get("buffers") or CalmBuffers(self._model)
        buffers.keep()
        state.extra = {
            "buffers": buffers,
            "random": random_state(),
            "rates": [[cloned(g["lr"]) for g in o.param_groups] for o in self._watched.optimizers],
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
            for optimizer, rates in zip(
                self._watched.optimizers, state.extra["rates"], strict=True
            ):
                for group, rate in zip(optimizer.param_groups, rates, strict=False):
                    _rate.put(group, rate)
        if self._on_rewind is not None:
            self._on_rewind(step)
        return step
