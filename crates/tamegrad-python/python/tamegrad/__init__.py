"""Detects, explains and fixes exploding gradients in neural-network training.

    guard = tamegrad.watch(model, optimizer)
    ...
    guard.log(loss=loss)
    loss.backward(); guard.clip_(max_norm=1.0); optimizer.step()
    guard.log(metric=accuracy)
    ...
    print(guard.diagnosis())

torch is imported only when something needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .diagnosis import Diagnosis, Finding, Measure, Operation, Remedy

if TYPE_CHECKING:
    from ._arrays import ArrayGuard, observe
    from ._bisect import Bisection, bisect
    from ._fix.outcome import Outcome
    from ._fix.result import Fix
    from ._fix.search import fix
    from ._fix.trial import Trial, TrialEnd
    from ._incident import Incident, load_incident
    from ._preflight import preflight
    from ._remedies import (
        add_batch_norm,
        add_norm,
        add_residual,
        reinitialize_,
        replace_activations,
        weight_penalty,
    )
    from ._telling import TamegradWarning
    from ._watch import watch
    from .guard import Guard

_LAZY = {
    "watch": "_watch",
    "Guard": "guard",
    "TamegradWarning": "_telling",
    "preflight": "_preflight",
    "reinitialize_": "_remedies",
    "add_batch_norm": "_remedies",
    "add_norm": "_remedies",
    "add_residual": "_remedies",
    "replace_activations": "_remedies",
    "weight_penalty": "_remedies",
    "load_incident": "_incident",
    "Incident": "_incident",
    "bisect": "_bisect",
    "Bisection": "_bisect",
    "fix": "_fix.search",
    "Fix": "_fix.result",
    "Trial": "_fix.trial",
    "TrialEnd": "_fix.trial",
    "Outcome": "_fix.outcome",
    "observe": "_arrays",
    "ArrayGuard": "_arrays",
}

__all__ = ["Diagnosis", "Finding", "Measure", "Operation", "Remedy", *_LAZY]


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(f".{module}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise ImportError(f"tamegrad.{name} needs torch: pip install torch") from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
