"""The settings of torch under which a step is run again: changed for an experiment, and put back."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from . import _backward
from ._experiments import Change
from ._state import random_state, set_random_state


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts back, on leaving, the random states, the settings of torch and the gradients of a model."""
    chance = random_state()
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    with contextlib.ExitStack() as parts:
        parts.enter_context(_backward.unseen())
        parts.callback(set_random_state, chance)
        for put, value in _settings():
            parts.callback(put, value)
        for parameter, gradient in gradients:
            parts.callback(setattr, parameter, "grad", gradient)
            # A step_fn that uses this model and not the one it is given would add to it in place.
            parameter.grad = None
        yield


def _settings() -> list[tuple[Callable[[Any], Any], Any]]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    checks_nan = torch.is_anomaly_check_nan_enabled()
    known: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_grad_enabled, torch.is_grad_enabled()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (lambda value: torch.set_anomaly_enabled(value, checks_nan), torch.is_anomaly_enabled()),
        (
            lambda value: torch.use_deterministic_algorithms(value, warn_only=warns),
            deterministic,
        ),
    ]
    # torch refuses to tell it where both its old and its new names were set.
    with contextlib.suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        known.append((_set_precision, precision))
    return known


def _set_precision(precision: str) -> None:
    if torch.get_float32_matmul_precision() != precision:
        torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def conditions(change: Change) -> Iterator[None]:
    with contextlib.ExitStack() as parts:
        if change.dtype is not None:
            parts.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(change.dtype)
            with contextlib.suppress(RuntimeError):
                parts.callback(_set_precision, torch.get_float32_matmul_precision())
                _set_precision("highest")
        if not change.autocast:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    parts.enter_context(torch.autocast(kind, enabled=False))
        if not change.compiles:
            parts.enter_context(_without_compiling())
        if change.plain_attention:
            attention = torch.nn.attention
            parts.enter_context(attention.sdpa_kernel(attention.SDPBackend.MATH))
        yield


def _without_compiling() -> contextlib.AbstractContextManager[Any]:
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is not None:
        return set_stance("force_eager")
    from torch import _dynamo

    return _dynamo.config.patch(disable=True)


class Autocast:
    """Sees whether an autocast is entered, and has it off if that is wanted."""

    def __init__(self, *, is_off: bool) -> None:
        self.is_seen = False
        self._is_off = is_off
        self._enter: Any = None
        self._turned_off: list[Any] = []

    def __enter__(self) -> None:
        self._enter = original = torch.autocast.__enter__

        def enter(context: Any) -> Any:
            if context._enabled:
                self.is_seen = True
                if self._is_off:
                    context._enabled = False
                    self._turned_off.append(context)
            return original(context)

        torch.autocast.__enter__ = enter

    def __exit__(self, *error: object) -> None:
        torch.autocast.__enter__ = self._enter
        for context in self._turned_off:
            context._enabled = True
