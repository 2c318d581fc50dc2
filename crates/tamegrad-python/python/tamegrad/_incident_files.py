"""What the writer and the reader of incidents share: names, files, and the tensors of a model by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ._names import plain, unwrapped
from ._safetensors import damaged

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


def parameters_in(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The parameters of an optimizer, in the order of its groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The shard of a sharded tensor."""
    return getattr(tensor, "_local_tensor", tensor)


def write_json(path: Path, value: Any) -> None:
    """Writes a new file, which is on the disk when this returns."""
    with open(path, "x", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Reads what was written.

    Raises ``ValueError`` if it is no JSON or no dictionary.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"no JSON ({error})", "what was written") from None
    if not isinstance(value, dict):
        raise damaged(path, f"a {type(value).__name__}", "a dictionary")
    return value
