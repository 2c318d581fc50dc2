"""Names of parameters and modules, without what wrappers put before them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def plain(name: str) -> str:
    """A dotted path without the parts that DDP, FSDP, ``torch.compile`` and checkpointing add."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join(parts)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DDP and ``torch.compile``."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def parameters_of(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> tuple[list[torch.Tensor], list[str]]:
    """The parameters of the optimizers, each once, in the model's order, and their names.

    One that is not the model's is named by its place in the optimizer: ``group0.3``.
    """
    held: dict[int, tuple[torch.Tensor, str]] = {}
    for place, optimizer in enumerate(optimizers):
        prefix = f"optimizer{place}." if place else ""
        for group_index, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                held.setdefault(id(parameter), (parameter, f"{prefix}group{group_index}.{index}"))
    parameters, names = [], []
    for name, parameter in model.named_parameters():
        if held.pop(id(parameter), None) is not None:
            parameters.append(parameter)
            names.append(plain(name))
    for parameter, name in held.values():
        parameters.append(parameter)
        names.append(name)
    return parameters, names
