"""The losses on which a loop calls ``backward()``, seen while their graphs are still whole."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch


class Seer(Protocol):
    """What wants to see them."""

    def see_backward(self, root: torch.Tensor, *, is_alone: bool) -> None:
        """Takes in a loss whose backward pass is about to begin; ``is_alone``: it is that of no other
        seer. It raises nothing."""

    def see_nan_gradient(self, root: torch.Tensor, *, is_alone: bool) -> None:
        """Takes in that torch's anomaly mode has stopped the backward pass of that loss at a gradient that is
        NaN. It raises nothing."""


_IS_NAN = "returned nan values"
"""In the message of torch's anomaly mode (``torch.autograd.set_detect_anomaly``)."""

_seers: weakref.WeakSet[Seer] = weakref.WeakSet()
_original: Callable[..., Any] = torch.autograd.backward


@functools.wraps(_original)
def _backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
    seers = list(_seers) if isinstance(tensors, torch.Tensor) else []
    for seer in seers:
        seer.see_backward(tensors, is_alone=len(seers) == 1)
    try:
        return _original(tensors, *args, **kwargs)
    except RuntimeError as error:
        if _IS_NAN in str(error):
            for seer in seers:
                seer.see_nan_gradient(tensors, is_alone=len(seers) == 1)
        raise


def attach(seer: Seer) -> None:
    """Has it see every backward pass, until it is detached or collected.

    ``torch.autograd.backward``, which ``Tensor.backward`` looks up at each call, is replaced meanwhile.
    """
    global _original
    _seers.add(seer)
    if not _is_ours(torch.autograd.backward):
        _original, torch.autograd.backward = torch.autograd.backward, _backward


def detach(seer: Seer) -> None:
    """Has it see no more; after the last one, torch is as it was."""
    _seers.discard(seer)
    if not _seers and torch.autograd.backward is _backward:
        torch.autograd.backward = _original


@contextlib.contextmanager
def unseen() -> Iterator[None]:
    """Hides the backward passes that are not the loop's."""
    seers = list(_seers)
    _seers.clear()
    try:
        yield
    finally:
        _seers.update(seers)


def _is_ours(function: Any) -> bool:
    """Whether ours is called, by what others have put over it as well."""
    while function is not _backward and hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function is _backward
