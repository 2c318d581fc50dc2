"""Names of parameters, modules and classes, without what wrappers put before them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def plain(name: str) -> str:
    """A dotted path without the parts that DDP, FSDP, ``torch.compile`` and checkpointing add."""
    parts = [part for part in name.split(".") if part not in _WRAPPERS]
    return ".".join(parts)


def class_name(value: Any) -> str:
    """The class of a value, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DDP and ``torch.compile``."""
    while True:
        # Not by `getattr`: a model's own `__getattr__` may raise what it likes.
        inner = model._modules.get("_orig_mod")
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def wrappers(model: nn.Module) -> list[nn.Module]:
    """What ``torch.compile`` has put round the model: the modules inside are never called one by one."""
    found = []
    while True:
        compiled = model._modules.get("_orig_mod")
        if compiled is not None:
            found.append(model)
            model = compiled
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return found


def parameters_of(
    model: nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> tuple[list[torch.Tensor], list[str]]:
    """The parameters of the optimizers, each once, in the model's order, and their names; without an
    optimizer those of the model that are trained.

    One that is not the model's is named by its place in the optimizer: ``group0.3``.
    """
    optimizers = list(optimizers)
    if not optimizers:
        trained = [(plain(n), p) for n, p in model.named_parameters() if p.requires_grad]
        return [parameter for _, parameter in trained], [name for name, _ in trained]
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
