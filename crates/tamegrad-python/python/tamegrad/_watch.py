"""``watch``: attaches a guard to a model and its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from .diagnosis import Finding
from .guard import Guard

_MODES = ("observe", "protect", "off")


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    mode: str = "observe",
    *,
    total_steps: int | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    on_finding: Callable[[Finding], None] | None = None,
    on_rewind: Callable[[int], None] | None = None,
    loggers: Iterable[Callable[[int, dict[str, Any]], None]] = (),
    log_every: int = 1,
    trace_every: int = 50,
    snapshot_every: int = 100,
    snapshots_max: int = 2,
    process_group: Any = None,
    strict: bool = False,
) -> Guard:
    """Attaches a guard to a training loop.

    ``observe`` changes nothing: weights and optimizer state stay what they would be, to the bit.
    ``protect`` leaves out steps that are not finite, scales spikes before the optimizer's moments
    see them, makes updates anew that would overthrow a weight matrix, lowers the learning rate for
    a while, and rewinds to a snapshot when the loss stays up. It keeps a copy of parameters and
    optimizer state, and ``snapshots_max`` more.

    Several optimizers that step on the same loss are given together. ``scheduler`` and ``scaler``
    go back with a rewind; ``on_rewind(step)`` is told of it, to move the data. ``on_finding`` is
    called with every sign that fires, ``loggers`` every ``log_every`` steps. An error inside
    tamegrad is shown once and ends the watching, never the training, unless ``strict``.

    Among several ranks (DDP, FSDP2) every rank calls this: the guards make a process group of their
    own, of all ranks, unless ``process_group`` names one.
    """
    optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer)
    if mode not in _MODES:
        raise ValueError(f"mode: got {mode!r}, want one of {', '.join(map(repr, _MODES))}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, want a torch.nn.Module")
    for part in optimizers:
        if not isinstance(part, torch.optim.Optimizer):
            raise TypeError(f"optimizer: got {type(part).__name__}, want a torch.optim.Optimizer")
    if not optimizers:
        raise ValueError("optimizer: got none, want at least one")
    return Guard(
        model,
        optimizers,
        mode=mode,
        trace_every=trace_every,
        snapshot_every=snapshot_every,
        snapshots_max=snapshots_max,
        total_steps=total_steps,
        scheduler=scheduler,
        scaler=scaler,
        on_rewind=on_rewind,
        on_finding=on_finding,
        loggers=loggers,
        log_every=log_every,
        process_group=process_group,
        strict=strict,
    )
