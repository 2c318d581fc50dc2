"""``watch``: attaches a guard to a model and its optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from ._core import SNAPSHOT_EVERY, SNAPSHOTS_MAX, TRACE_EVERY
from ._optimizers import resolved
from ._telling import Teller
from .diagnosis import Finding
from .guard import Guard

_MODES = ("observe", "protect", "off")


def watch(
    model: nn.Module,
    optimizer: Any,
    mode: str = "observe",
    *,
    total_steps: int | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    on_finding: Callable[[Finding], None] | None = None,
    on_rewind: Callable[[int], None] | None = None,
    loggers: Iterable[Callable[[int, dict[str, Any]], None]] = (),
    log_every: int = 1,
    trace_every: int = TRACE_EVERY,
    snapshot_every: int = SNAPSHOT_EVERY,
    snapshots_max: int = SNAPSHOTS_MAX,
    process_group: Any = None,
    strict: bool = False,
) -> Guard:
    """Attaches a guard to a training loop.

    ``observe`` changes nothing: weights and optimizer state stay what they would be, to the bit.
    ``protect`` leaves out steps that are not finite, scales spikes before the optimizer's moments
    see them, makes updates anew that would overthrow a weight matrix, lowers the learning rate for
    a while, and rewinds to a snapshot when the loss stays up. After a step that it leaves out ``.grad``
    holds what the backward pass left. It keeps ``snapshots_max`` copies of the parameters, and while
    the run is young or troubled one of parameters and optimizer state.

    ``optimizer`` is a torch optimizer, a wrapper that holds one as ``.optimizer`` (accelerate's,
    Lookahead), several that step on the same loss, or ``None`` for updates by hand, before each of which
    :meth:`Guard.step` is called. Parameters that it gets later are watched as well, and so is an
    optimizer that takes its place. A guard that was there for the same parameters is let go. ``scheduler`` and ``scaler``
    go back with a rewind; ``on_rewind(step)`` is told of it, to move the data. ``on_finding`` is
    called with every sign that fires, ``loggers`` every ``log_every`` steps. An error inside
    tamegrad ends the watching, never the training, unless ``strict``: it is logged as an error to the
    logger ``tamegrad``, and the diagnosis begins with it.

    Among several ranks (DDP, FSDP2) every rank calls this: the guards make a process group of their
    own, of all ranks, unless ``process_group`` names one.
    """
    if mode not in _MODES:
        raise ValueError(f"mode: got {mode!r}, want one of {', '.join(map(repr, _MODES))}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, want a torch.nn.Module")
    optimizers = [] if optimizer is None else resolved(optimizer)
    if optimizer is not None and not optimizers:
        raise ValueError("optimizer: got none, want at least one, or None for updates by hand")
    return Guard(
        model,
        optimizers,
        Teller(on_finding, loggers, log_every),
        strict=strict,
        options={
            "mode": mode,
            "trace_every": trace_every,
            "snapshot_every": snapshot_every,
            "snapshots_max": snapshots_max,
            "planned_steps": total_steps,
        },
        scheduler=scheduler,
        scaler=scaler,
        on_rewind=on_rewind,
        process_group=process_group,
    )
