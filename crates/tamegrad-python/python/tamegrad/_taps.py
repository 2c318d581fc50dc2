"""Seeing the calls of a module without a hook on it, so that nothing of ours is in a copy of the model."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import nn

_SLOT = "_compiled_call_impl"
"""Where torch keeps a module's compiled call: it is asked first in ``module(...)``, left out of pickles
and deep copies, and not looked at by ``torch.compile`` and ``torch.jit.script``."""


# `torch.jit.script` looks at every attribute that is not in its list of torch's own.
with contextlib.suppress(AttributeError):
    torch.jit._recursive.ignored_attributes.append(_SLOT)


class Watcher(Protocol):
    """Who is told of calls. What it raises would stop the training: it must not raise."""

    def sees(self) -> bool:
        """Whether it wants to be told of a call at this moment."""
        ...

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before the call."""
        ...

    def leave(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """After it."""
        ...

    def abandon(self) -> None:
        """In place of ``leave`` when the call has raised."""
        ...


class Tap:
    """Stands in a module's slot. A copy of it is ``None``: an empty slot."""

    def __init__(self, module: nn.Module, watcher: Watcher) -> None:
        self.module = module
        self.watcher = watcher
        self.inner = module.__dict__.get(_SLOT)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return self.module._call_impl(*args, **kwargs)
        # A shallow copy of the module's dictionary, as DataParallel makes it, has the tap as well.
        called = sys._getframe(1).f_locals.get("self")
        if called is not self.module and isinstance(called, nn.Module):
            return called._call_impl(*args, **kwargs)
        call = self.module._call_impl if self.inner is None else self.inner
        if not self.watcher.sees():
            return call(*args, **kwargs)
        try:
            self.watcher.enter(self.module, args, kwargs)
            output = call(*args, **kwargs)
        except BaseException:
            self.watcher.abandon()
            raise
        self.watcher.leave(self.module, args, kwargs, output)
        return output

    def __reduce__(self) -> tuple:
        # For copies and pickles. Calling the type of `None` gives `None`, with no need of tamegrad.
        return type(None), ()


class Taps:
    """The taps of one watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._placed: dict[nn.Module, Tap] = {}

    def set(self, modules: Iterable[nn.Module]) -> None:
        """Has taps on these modules, and on no others."""
        wanted = set(modules)
        placed = self._placed
        # The slots are the same in nearly every step.
        if wanted == placed.keys() and all(m.__dict__.get(_SLOT) is placed[m] for m in wanted):
            return
        for module in self._placed.keys() - wanted:
            self._remove(module)
        for module in wanted:
            # `module.compile()` may have come after us, and has taken the slot.
            if self._placed.get(module) not in _chain(module):
                self._placed[module] = module.__dict__[_SLOT] = Tap(module, self._watcher)

    def _remove(self, module: nn.Module) -> None:
        tap = self._placed.pop(module)
        if module.__dict__.get(_SLOT) is tap:
            if tap.inner is None:
                del module.__dict__[_SLOT]
            else:
                module.__dict__[_SLOT] = tap.inner
        # The tap of another guard may have been placed over this one.
        for over in _chain(module):
            if over.inner is tap:
                over.inner = tap.inner


def _chain(module: nn.Module) -> list[Tap]:
    """The taps on a module, the outermost first."""
    held, taps = module.__dict__.get(_SLOT), []
    while isinstance(held, Tap):
        taps.append(held)
        held = held.inner
    return taps


def compiled_call(module: nn.Module) -> Any:
    """What the user has put into a module's slot: its compiled call, or ``None``."""
    taps = _chain(module)
    return taps[-1].inner if taps else module.__dict__.get(_SLOT)


def is_plain_call(is_within: bool) -> bool:
    """Whether a call at this moment is one of a training loop: it records gradients (or lies within
    one that does, as the layers of a checkpoint), and it is neither traced nor part of a backward pass,
    which repeats the passes of checkpoints, nor under a transform of ``torch.func``."""
    return (
        (is_within or torch.is_grad_enabled())
        and torch._C._current_graph_task_id() == -1
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
    )
