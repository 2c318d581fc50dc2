"""The optimizers of a loop: what is inside a wrapper, and what steps on our parameters later."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

_INSIDE = ("optimizer", "base_optimizer", "_optimizer", "optim", "optimizers")
"""Attributes of wrappers (accelerate, Lightning, Lookahead, SAM) that hold the optimizer."""
_DEPTH_MAX = 8
_WRAPPER = torch.optim.Optimizer.profile_hook_step.__code__.co_filename
"""The file of the wrapper that runs the hooks of ``step``."""


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
        "holds one as `.optimizer`, or a list of them; for updates made by hand, pass None and call "
        "guard.step() before each"
    )


def parameters_in(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters of an optimizer, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step cannot be taken without a closure, as that of LBFGS."""
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


class Nesting:
    """Tells an optimizer's step from one within it: a subclass that calls ``super().step()`` runs all
    hooks twice where its parent has been used by itself as well."""

    def __init__(self) -> None:
        self._depths: dict[int, int] = {}

    def enter(self, optimizer: torch.optim.Optimizer) -> bool:
        """Before a step; whether it is the outermost."""
        depth = self._depths.get(id(optimizer), 0)
        # A step that has raised was never left.
        depth = depth if depth and _running_steps(optimizer) > 1 else 0
        self._depths[id(optimizer)] = depth + 1
        return depth == 0

    def leave(self, optimizer: torch.optim.Optimizer) -> bool:
        """After a step; whether it was the outermost."""
        self._depths[id(optimizer)] = depth = self._depths.get(id(optimizer), 1) - 1
        return depth == 0


def _running_steps(optimizer: torch.optim.Optimizer) -> int:
    """How many of torch's wrappers of ``step`` are running for an optimizer."""
    frame, count = sys._getframe(1), 0
    while frame is not None:
        is_wrapper = frame.f_code.co_filename == _WRAPPER and frame.f_code.co_name == "wrapper"
        count += is_wrapper and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return count


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
