"""The moments at which a loop clears its gradients, seen while they are still there."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import nn


class Seer(Protocol):
    """What wants to see them."""

    def see_clearing(self, of: torch.optim.Optimizer | nn.Module) -> None:
        """Takes in that the gradients of an optimizer's or a module's parameters are about to be cleared.
        It raises nothing of its own."""


_PLACES = (torch.optim.Optimizer, nn.Module)
_seers: weakref.WeakSet[Seer] = weakref.WeakSet()
_originals: dict[type, Callable[..., None]] = {}
"""torch's own ``zero_grad`` while ours stand in their place."""


def attach(seer: Seer) -> None:
    """Has it see every ``zero_grad``, until it is detached or collected."""
    _seers.add(seer)
    for place in _PLACES if not _originals else ():
        _originals[place] = place.zero_grad
        place.zero_grad = _told(place.zero_grad)


def detach(seer: Seer) -> None:
    """Has it see no more; after the last one, torch is as it was."""
    _seers.discard(seer)
    if not _seers and all(hasattr(place.zero_grad, "_is_ours") for place in _PLACES):
        for place, original in _originals.items():
            place.zero_grad = original
        _originals.clear()


def _told(original: Callable[..., None]) -> Callable[..., None]:
    @torch._disable_dynamo
    @functools.wraps(original)
    def zero_grad(self: Any, *args: Any, **kwargs: Any) -> None:
        for seer in list(_seers):
            seer.see_clearing(self)
        return original(self, *args, **kwargs)

    zero_grad._is_ours = True
    return zero_grad
