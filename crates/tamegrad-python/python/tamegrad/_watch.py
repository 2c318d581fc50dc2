"""``watch``: attaches a guard to a model and its optimizers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from ._core import SNAPSHOT_EVERY, SNAPSHOTS_MAX, TRACE_EVERY
from ._incident_writer import Place
from ._optimizers import resolved
from ._record import IfRunExists
from ._repeat import StepFn
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
    run: str | os.PathLike[str] | None = None,
    if_run_exists: IfRunExists = "number",
    incidents: Place = True,
    strict: bool = False,
    step_fn: StepFn | None = None,
) -> Guard:
    """Attaches a guard to a training loop.

    ``observe`` changes nothing: weights and optimizer state are bit-identical to those of a run
    without the guard. ``protect`` skips steps that are not finite, scales spikes before the optimizer's
    moments see them, shrinks updates that would overwrite a weight matrix, lowers the learning rate
    for a while, and rewinds to a snapshot if the loss stays up. After a skipped step, ``.grad`` holds
    what the backward pass left there. ``protect`` keeps ``snapshots_max`` copies of the parameters and,
    while the run is young or in trouble, one copy of the parameters and the optimizer state.

    ``optimizer`` is a torch optimizer, a wrapper that holds one as ``.optimizer`` (accelerate's,
    Lookahead), several optimizers that step on the same loss, or ``None`` for updates made by hand,
    each after a call to :meth:`Guard.step`. Parameters added to it later are watched as well, and so
    is an optimizer that replaces it. An earlier guard of the same parameters is detached.
    ``scheduler`` and ``scaler`` are rewound too; ``on_rewind(step)`` is called so that the data can
    follow. ``on_finding`` is called with every sign that fires, ``loggers`` every ``log_every`` steps.
    Unless ``strict`` is set, an error inside tamegrad never stops the training: the guard stops watching,
    the error goes to the logger ``tamegrad``, and the diagnosis begins with it.

    ``run`` is a folder in which the run is recorded while it goes on, for ``tamegrad diagnose``, ``watch``
    and ``export``. If it already holds a run, ``if_run_exists`` says what to do: ``"number"`` writes to
    the next free name (``x-2``, see :attr:`Guard.run_folder`), ``"overwrite"`` replaces the earlier run
    when this one ends, and ``"resume"`` continues it. Raises ``OSError`` if nothing can be written there.
    If the disk fails later, you are warned, and the training goes on::

        guard = tamegrad.watch(model, optimizer, run="runs/first")

    ``step_fn(model, batch)`` returns the loss of a batch as the loop computes it, including autocast. If
    the batch of each step is logged too, the guard can run the whole step again after an alarm, and name
    the line of the loss that made the first NaN or Inf; everything that this changes is put back. With
    several ranks it is not used::

        guard = tamegrad.watch(model, optimizer, step_fn=lambda model, batch: loss_of(model, *batch))
        guard.log(loss=loss, batch=batch)

    At the first alarm, the step is saved in ``incident-<step>`` of the run folder: batch, random states,
    parameters, optimizer state and settings, up to 256 MiB of each, so that :func:`load_incident` and
    :func:`bisect` can rerun it. ``incidents`` names another folder for it; ``False`` switches it off.

    With several ranks (DDP, FSDP2), call this on every rank: the guards create a process group of
    their own with all ranks, unless ``process_group`` gives one. Rank 0 records the run of all.
    """
    if mode not in _MODES:
        raise ValueError(f"mode: got {mode!r}, want one of {', '.join(map(repr, _MODES))}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: got {type(model).__name__}, want a torch.nn.Module")
    if step_fn is not None and not callable(step_fn):
        raise TypeError(f"step_fn: got {type(step_fn).__name__}, want a function")
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
        step_fn=step_fn,
        run=run,
        if_run_exists=if_run_exists,
        incidents=incidents,
    )
