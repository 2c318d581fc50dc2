"""Hooks at the optimizers' steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ._optimizers import Nesting
from ._update import UpdateWatch

_Told = Callable[[torch.optim.Optimizer], None]


class StepHooks:
    """Tells of each optimizer's step: ``opens`` before its update, ``closes`` after it.

    An optimizer that is given a closure makes the gradients itself: ``opens_with`` is called, with the
    loss, after the closure's first evaluation. Steps within a step and updates that are made anew are
    not told.
    """

    def __init__(
        self,
        update: UpdateWatch,
        *,
        opens: _Told,
        opens_with: Callable[[torch.optim.Optimizer, Any], None],
        closes: _Told,
    ) -> None:
        self._update = update
        self._opens, self._opens_with, self._closes = opens, opens_with, closes
        self._handles: dict[int, list[Any]] = {}
        self._nesting = Nesting()

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Begins to tell of an optimizer's steps."""
        self._handles[id(optimizer)] = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def detach(self, optimizer: torch.optim.Optimizer) -> None:
        """Tells of them no more."""
        for handle in self._handles.pop(id(optimizer), []):
            handle.remove()

    def detach_all(self) -> None:
        """Tells of no optimizer's steps any more."""
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles = {}

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict):
        if self._is_off() or not self._nesting.enter(optimizer):
            return None
        self._update.evaluations = 0
        # The hook's own first argument is the optimizer.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._opens(optimizer)
            return None

        @functools.wraps(closure)
        def watched():
            self._update.is_in_closure = True
            try:
                loss = closure()
            finally:
                self._update.is_in_closure = False
            self._update.evaluations += 1
            if self._update.evaluations == 1:
                self._opens_with(optimizer, loss)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        if not self._is_off() and self._nesting.leave(optimizer):
            self._closes(optimizer)

    def _is_off(self) -> bool:
        # Hooks that were taken away in the middle of a step are still called at its end.
        return not self._handles or self._update.is_repeating
