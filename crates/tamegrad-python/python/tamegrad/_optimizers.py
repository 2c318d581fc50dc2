"""The optimizers of a loop: what is inside a wrapper, and what steps on our parameters later."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

_INSIDE = ("optimizer", "base_optimizer", "_optimizer", "optim", "optimizers")
"""Attributes of wrappers (accelerate, Lightning, Lookahead, SAM) that hold the optimizer."""
_DEPTH_MAX = 8


def resolved(optimizer: Any) -> list[torch.optim.Optimizer]:
    """The torch optimizers in one, in a wrapper of one, or in a list of either; each once.

    Raises ``TypeError`` for anything else.
    """
    if isinstance(optimizer, (list, tuple)):
        found = [inner for part in optimizer for inner in resolved(part)]
        return list({id(inner): inner for inner in found}.values())
    inner = optimizer
    for _ in range(_DEPTH_MAX):
        if isinstance(inner, (list, tuple)) and inner:
            return resolved(inner)
        if isinstance(inner, torch.optim.Optimizer) and "_optimizer_step_pre_hooks" in vars(inner):
            return [inner]
        held = (getattr(inner, name, None) for name in _INSIDE)
        inner = next((part for part in held if part is not None), None)
        if inner is None:
            break
    raise TypeError(
        f"optimizer: got {type(optimizer).__name__}, want a torch.optim.Optimizer, a wrapper that "
        "holds one as `.optimizer`, or a list of them; for updates by hand give None and call "
        "guard.step() before each"
    )


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step cannot be taken without a closure, as that of LBFGS."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


class Newcomers:
    """Tells of optimizers that step on parameters which are watched and are not among the known.

    It rests on one hook of torch's for all optimizers, which is there while anybody wants it.
    """

    def __init__(self, told: Callable[[torch.optim.Optimizer], None]) -> None:
        self._told = weakref.WeakMethod(told)
        self._known: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()

    def know(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Has these among the known."""
        self._known.update(optimizers)

    def attach(self) -> None:
        """Begins to tell."""
        global _handle
        _live.add(self)
        if _handle is None:
            _handle = register_optimizer_step_pre_hook(_before_any_step)

    def detach(self) -> None:
        """Tells no more."""
        global _handle
        _live.discard(self)
        if not _live and _handle is not None:
            _handle.remove()
            _handle = None

    def _see(self, optimizer: torch.optim.Optimizer) -> None:
        if optimizer not in self._known:
            self._known.add(optimizer)
            told = self._told()
            if told is not None:
                told(optimizer)


_live: weakref.WeakSet[Newcomers] = weakref.WeakSet()
_handle: Any = None


def _before_any_step(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
    for newcomers in list(_live):
        newcomers._see(optimizer)
