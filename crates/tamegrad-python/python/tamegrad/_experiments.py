"""The experiments of a bisection: what each changes, when it applies, and what it has shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

_EPS = 1e-4
"""The eps of the experiment ``larger-eps``."""


@dataclass
class Experiment:
    """One repetition of the step, or why there was none."""

    name: str
    state: str = "ran"
    """``ran``, ``does-not-apply`` or ``not-run``."""
    why: str | None = None
    """Why it was not run, in words."""
    loss: float | None = None
    gradient_norm: float | None = None
    """L2 norm of all gradients; NaN or infinite if one of them is."""
    largest: float | None = None
    """The largest finite element of the gradients, in magnitude."""
    finite_loss: bool | None = None
    finite_gradients: bool | None = None
    finite_parameters: bool | None = None
    """After the update, where one was made."""
    breaks: bool | None = None
    """Whether something was not finite, or the gradient above the limit; ``None`` if unknown."""
    seconds: float = 0.0
    error: str | None = None
    """What was raised instead."""
    bits: bytes = field(default=b"", repr=False)
    """A digest of loss and gradients."""


@dataclass
class Facts:
    """What the first repetition has shown of the step."""

    dtypes: set[torch.dtype]
    devices: set[str]
    uses_autocast: bool = False
    uses_attention: bool = False
    is_compiled: bool = False
    has_dropout: bool = False
    eps: float | None = None
    """The smallest eps of the optimizers."""
    state_dtypes: set[torch.dtype] = field(default_factory=set)
    has_optimizer: bool = False


@dataclass(frozen=True)
class Change:
    """The conditions of an experiment."""

    name: str
    why_not: Callable[[Facts], str | None] = lambda facts: None
    """Why it does not apply, in words."""
    dtype: torch.dtype | None = None
    """The type of the model and of the batch's floats."""
    autocast: bool = True
    compiles: bool = True
    plain_attention: bool = False
    on_cpu: bool = False
    dropout: bool = True
    updates: bool = False
    eps: float | None = None


def _unless(condition: Callable[[Facts], bool], why: str) -> Callable[[Facts], str | None]:
    return lambda facts: None if condition(facts) else why


def _f32(facts: Facts) -> str | None:
    if facts.uses_autocast or facts.dtypes != {torch.float32}:
        return None
    return "the step is in float32 already"


_NO_OPTIMIZER = "no optimizer was given"

AGAIN = Change("again")
CHANGES = [
    Change("again-2"),
    # A compiled pass has its types built in.
    Change("f32", _f32, dtype=torch.float32, autocast=False, compiles=False),
    Change(
        "f64",
        _unless(lambda facts: facts.devices <= {"cpu", "cuda"}, "the device has no float64"),
        dtype=torch.float64,
        autocast=False,
        compiles=False,
    ),
    Change(
        "no-autocast",
        _unless(lambda facts: facts.uses_autocast, "no autocast is on"),
        autocast=False,
        compiles=False,
    ),
    Change(
        "no-compile",
        _unless(lambda facts: facts.is_compiled, "nothing is compiled"),
        compiles=False,
    ),
    Change(
        "plain-attention",
        _unless(lambda facts: facts.uses_attention, "there is no fused attention"),
        plain_attention=True,
    ),
    Change(
        "no-dropout",
        _unless(lambda facts: facts.has_dropout, "no dropout is active"),
        dropout=False,
    ),
    Change(
        "cpu",
        _unless(lambda facts: facts.devices != {"cpu"}, "the step runs on the CPU already"),
        on_cpu=True,
        compiles=False,
    ),
]
UPDATE = Change("update", _unless(lambda facts: facts.has_optimizer, _NO_OPTIMIZER), updates=True)
UPDATES = [
    UPDATE,
    Change(
        "larger-eps",
        lambda facts: (
            _NO_OPTIMIZER
            if not facts.has_optimizer
            else "the optimizer has no eps"
            if facts.eps is None
            else f"eps is {facts.eps:g}"
            if facts.eps >= _EPS
            else None
        ),
        updates=True,
        eps=_EPS,
    ),
    Change(
        "f32-state",
        lambda facts: (
            _NO_OPTIMIZER
            if not facts.has_optimizer
            else None
            if any(dtype.itemsize < 4 for dtype in facts.state_dtypes)
            else "parameters and state are no narrower than float32"
        ),
        dtype=torch.float32,
        updates=True,
    ),
]
