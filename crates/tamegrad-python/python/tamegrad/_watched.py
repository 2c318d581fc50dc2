"""The parameters that are watched, by name, and the optimizers that step on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from . import _layout, _names


class Watched:
    """Parameters and optimizers, which may change while a run goes on.

    The lists stay the same objects: others hold them.
    """

    def __init__(self, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._model = model
        self.optimizers = list(optimizers)
        self.parameters, self.names = _names.parameters_of(model, self.optimizers)
        self._slots = _layout.slots(self.optimizers)

    def are_strange(self) -> bool:
        """Whether none of them is the model's."""
        own = {id(parameter) for parameter in self._model.parameters()}
        return bool(own) and own.isdisjoint(map(id, self.parameters))

    def has_device(self) -> bool:
        """Whether a parameter lies in the memory of another device."""
        return any(p.device.type not in ("cpu", "meta") for p in self.parameters)

    def has_grown(self) -> bool:
        """Whether the optimizers hold another number of parameters than they did."""
        return _layout.slots(self.optimizers) != self._slots

    def take_newcomers(self) -> list[tuple[torch.Tensor, str]]:
        """Takes in the parameters that the optimizers have got since; gives them with their names."""
        self._slots = _layout.slots(self.optimizers)
        known = set(map(id, self.parameters))
        pairs = zip(*_names.parameters_of(self._model, self.optimizers), strict=True)
        added = [(parameter, name) for parameter, name in pairs if id(parameter) not in known]
        self.parameters += [parameter for parameter, _ in added]
        self.names += [name for _, name in added]
        return added

    def replace_by(self, optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer] | None:
        """Takes an optimizer in the place of those that stepped on the same parameters; gives these, or
        ``None`` where it steps on none of ours."""
        slots = _ids(optimizer)
        gone = self._take_successors_in(slots)
        if not self.optimizers or slots.isdisjoint(map(id, self.parameters)):
            return None
        replaced = [old for old in self.optimizers if not _ids(old).isdisjoint(slots | gone)]
        for old in replaced:
            self.optimizers.remove(old)
        self.optimizers.append(optimizer)
        return replaced

    def _take_successors_in(self, slots: set[int]) -> set[int]:
        """Watches parameters of these ids that have come under the names of ours (``assign=True``, layers
        made anew); gives the ids of those that are gone."""
        current = {_names.plain(name): p for name, p in self._model.named_parameters()}
        gone = set()
        for index, (parameter, name) in enumerate(zip(self.parameters, self.names, strict=True)):
            successor = current.get(name, parameter)
            if successor is not parameter and id(successor) in slots:
                self.parameters[index] = successor
                gone.add(id(parameter))
        return gone


def _ids(optimizer: torch.optim.Optimizer) -> set[int]:
    return {id(p) for group in optimizer.param_groups for p in group["params"]}
