"""Adaptive gradient clipping: each unit's gradient is held against its weights (Brock et al. 2021)."""

from __future__ import annotations

from ... import _clipping
from ..._optimizers import parameters_in
from ..change import Case, Change, own

KIND = "clip-units"
FAMILY = "clip"

_RATIO, _EPS = 0.01, 1e-3
"""As in the paper."""


def propose(case: Case) -> list[Change]:
    """Where another clip is proposed."""
    if case.proposes("clip-global-norm") is None:
        return []
    text = f"adaptive clipping of each unit at {_RATIO} of its weights"
    code = f"guard.clip_units_({_RATIO})  # guard = tamegrad.watch(model, optimizer); before optimizer.step()"
    return [own(KIND, KIND, text, code, ratio=_RATIO)]


def apply(change, trial, model, optimizers) -> None:
    """Clips all but the parameters of the last layer, as the paper does."""
    last = {id(p) for p in [*model.parameters()][-2:]}

    def clip(optimizer) -> None:
        clipped = [p for p in parameters_in(optimizer) if id(p) not in last]
        _clipping.by_unit(clipped, change["ratio"], _EPS)

    trial.before_step(clip)
