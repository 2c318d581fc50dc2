"""What the writer and the reader of incidents share: names of files, and the tensors of a model by name."""

from __future__ import annotations

import torch
from torch import nn

from ._names import plain, unwrapped

SCHEMA = "tamegrad/incident/1"
MAIN_FILE = "incident.json"
BEFORE_UPDATE = "before the update"


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by their plain names; those that are tied once."""
    model = unwrapped(model)
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = {plain(name): tensor for name, tensor in named}
    # A part of the model's own may have the name of a wrapper.
    return tensors if len(tensors) == len(named) else dict(named)


def modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The modules of a model by their plain names."""
    return [(plain(name), module) for name, module in unwrapped(model).named_modules()]
