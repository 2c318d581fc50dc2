"""The changes that a trial can apply: one file a kind, listed with the least force first.

A file has ``KIND``, ``FAMILY`` and ``apply(change, trial, model, optimizers)``, which raises
:class:`CannotApply` where the change does not apply. It may have ``KNOB`` with ``turn(change, given)``:
the value that the objective gets for that knob; with ``NEEDS`` it does not apply without the knob.
``propose(case)`` gives changes beyond those of the diagnosis, and ``milder(change)`` the same change with
a milder number.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from ..change import Case, Change
from . import (
    activation,
    batch_norm,
    batch_size,
    clear_gradients,
    clip_global_norm,
    clip_tensor_norm,
    clip_units,
    clip_value,
    depth,
    drop_last_batch,
    filter_rows,
    guard,
    l1_penalty,
    l2_penalty,
    layer_norm,
    learning_rate,
    limit_rate,
    mean_loss,
    momentum,
    optimizer_eps,
    reinitialise,
    residual,
    scale_input,
    scale_target,
    warm_up,
    weight_decay,
    wider_type,
    width,
)

CHANGES: tuple[ModuleType, ...] = (
    filter_rows,
    drop_last_batch,
    guard,
    optimizer_eps,
    clear_gradients,
    mean_loss,
    clip_global_norm,
    clip_tensor_norm,
    clip_value,
    clip_units,
    limit_rate,
    warm_up,
    learning_rate,
    momentum,
    scale_target,
    scale_input,
    weight_decay,
    l2_penalty,
    l1_penalty,
    batch_size,
    wider_type,
    reinitialise,
    batch_norm,
    layer_norm,
    activation,
    residual,
    depth,
    width,
)
BY_KIND = {module.KIND: module for module in CHANGES}


def force(change: Change) -> int:
    """How much of the training it changes: 0 is the least."""
    return CHANGES.index(BY_KIND[change.kind])


def strength(found: Sequence[Change]) -> tuple[int, int]:
    """How much changes do together, to be compared: their number, and the force of the strongest."""
    return len(found), max(map(force, found), default=-1)


def milder(change: Change) -> Change | None:
    """The same change with a milder number, where there is one."""
    make = getattr(BY_KIND[change.kind], "milder", None)
    return None if make is None else make(change)


def family(change: Change) -> str:
    """What it has in common with others, of which one is tried before the next."""
    return BY_KIND[change.kind].FAMILY


def propose(case: Case) -> list[Change]:
    """What the diagnosis proposes and can be applied, and what the changes propose themselves: those
    that treat the cause first, then the least force first."""
    known = [change for change in case.proposed if change.kind in BY_KIND]
    own = [c for module in CHANGES if hasattr(module, "propose") for c in module.propose(case)]
    found = {change.label: change for change in [*known, *own]}
    return sorted(found.values(), key=lambda change: (not change.treats_cause, force(change)))


def missing_knob(change: Change, case: Case) -> str | None:
    """The knob that a change needs and the objective does not offer."""
    module = BY_KIND[change.kind]
    needs = getattr(module, "NEEDS", None)
    return needs if needs is not None and needs not in case.knobs else None
