"""What the core is told of each parameter."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ._ranks import local_shard

Row = tuple[str, int | None, bool, int | None]
"""Name, layer, whether it is a weight matrix, and the inputs of one of its units."""


def row(parameter: torch.Tensor, name: str, owners: dict[str, int]) -> Row:
    """The row of a parameter, whose layer is that of the nearest module which owns it."""
    owner = name.rpartition(".")[0]
    while owner and owner not in owners:
        owner = owner.rpartition(".")[0]
    fan_in = parameter.numel() // max(parameter.shape[0], 1) if parameter.dim() > 1 else None
    return name, owners.get(owner), _is_matrix(parameter), fan_in


def dtype_max(parameters: Iterable[torch.Tensor]) -> float | None:
    """The largest number of the narrowest type among the parameters."""
    kinds = {p.dtype for p in parameters if p.is_floating_point()}
    return min((torch.finfo(kind).max for kind in kinds), default=None)


def slots(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """How many parameters the optimizers hold."""
    return sum(len(group["params"]) for optimizer in optimizers for group in optimizer.param_groups)


def _is_matrix(parameter: torch.Tensor) -> bool:
    # Zeros at the start have no size that an update could be held against (LoRA's B).
    if parameter.dim() < 2 or parameter.device.type == "meta":
        return False
    local = local_shard(parameter).detach()
    return bool(local.numel()) and bool(local.any())
