"""Copies of the training state to go back to: parameters, optimizer state, random state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from typing import Any

import torch

from ._ranks import local_shard
from ._versions import keeping_versions


class StateCopy:
    """A copy of parameters and optimizer state, in memory that is used again.

    A fresh ``clone()`` is some ten times slower than a copy into memory that is there already.
    """

    def __init__(
        self,
        parameters: list[torch.Tensor],
        optimizers: Iterable[torch.optim.Optimizer],
    ) -> None:
        self._live = list(parameters)
        self._optimizers = list(optimizers)
        self._saved: list[torch.Tensor] = []
        self._states: list[dict[torch.Tensor, dict[str, Any]]] = [{} for _ in self._optimizers]
        self._groups: list[list[dict[str, Any]]] = []
        self.extra: dict[str, Any] = {}

    @property
    def parameters(self) -> list[torch.Tensor]:
        """The copies of the parameters."""
        return self._saved

    @torch.no_grad()
    def take(self) -> None:
        """Copies the state as it is now."""
        sources = [tensor.detach() for tensor in self._live]
        if self._saved:
            _copy(self._saved, sources)
        else:
            self._saved = [source.clone() for source in sources]
        targets: list[torch.Tensor] = []
        values: list[torch.Tensor] = []
        for place, optimizer in enumerate(self._optimizers):
            known, now = self._states[place], {}
            for parameter, state in optimizer.state.items():
                before = known.get(parameter, {})
                now[parameter] = {
                    key: _into(before.get(key), value, targets, values)
                    for key, value in state.items()
                }
            self._states[place] = now
        _copy(targets, values)
        self._groups = [
            [
                {k: v for k, v in group.items() if k not in ("params", "lr")}
                for group in optimizer.param_groups
            ]
            for optimizer in self._optimizers
        ]

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the copied state back, in place."""
        live = [local_shard(tensor) for tensor in self._live]
        with keeping_versions(live):
            _copy([tensor.detach() for tensor in live], self._saved)
        for optimizer, states, groups in zip(
            self._optimizers, self._states, self._groups, strict=True
        ):
            for parameter in list(optimizer.state):
                if parameter not in states:
                    del optimizer.state[parameter]
            for parameter, saved in states.items():
                state = optimizer.state[parameter]
                for key in list(state):
                    if key not in saved:
                        del state[key]
                for key, value in saved.items():
                    if isinstance(value, torch.Tensor) and isinstance(state.get(key), torch.Tensor):
                        state[key].copy_(value)
                    else:
                        state[key] = cloned(value)
            for group, saved_group in zip(optimizer.param_groups, groups, strict=False):
                group.update(saved_group)


def _into(place: Any, value: Any, targets: list[torch.Tensor], values: list[torch.Tensor]) -> Any:
    if not isinstance(value, torch.Tensor):
        return cloned(value)
    fits = (
        isinstance(place, torch.Tensor)
        and place.shape == value.shape
        and place.dtype == value.dtype
        and place.device == value.device
    )
    if not fits:
        return value.detach().clone()
    targets.append(place)
    values.append(value.detach())
    return place


def cloned(value: Any) -> Any:
    """A copy that shares nothing that changes: LBFGS keeps its history in lists of tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: cloned(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(cloned(item) for item in value)
    return value


def _copy(targets: list[torch.Tensor], sources: list[torch.Tensor]) -> None:
    if targets:
        torch._foreach_copy_([local_shard(t) for t in targets], [local_shard(s) for s in sources])


def random_state() -> dict[str, Any]:
    """The state of every random generator that training draws from."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["numpy"] = numpy.random.get_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Puts the random generators back."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in state:
        numpy.random.set_state(state["numpy"])
