"""Why an update from finite gradients was not finite: what an optimizer divides by, in its state's type."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ._operations import is_finite

_MOMENTS = ("exp_avg_sq", "square_avg", "sum", "exp_inf", "acc_delta")
"""Where optimizers keep what they divide by."""


@dataclass(frozen=True)
class Division:
    """The division in an optimizer's update of one parameter."""

    optimizer: str
    eps: float | None
    dtype: str
    """Type of the parameter."""
    state_dtype: str | None
    """Type of what it divides by."""
    eps_in_type: float | None
    """What is left of ``eps`` in that type; 0 where it rounds to nothing."""
    zeros: int
    """Elements of what it divides by that are 0."""
    lost: int
    """Those of them whose first moment is not 0, and is more than 100 times ``eps``: the squares of
    their gradients have rounded to 0."""
    len: int
    tensor: int
    """Place of the parameter among the watched ones."""


@torch.no_grad()
def broken_division(
    parameters: list[torch.Tensor], optimizers: Iterable[torch.optim.Optimizer]
) -> Division | None:
    """What there is to say of the update of the first parameter that is not finite, or else of the one
    with the most lost squares; ``None`` where there is none, or its optimizer divides by nothing."""
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    broken = next((i for i, p in enumerate(parameters) if not is_finite(p)), None)
    found = [
        _division(places[id(parameter)], parameter, optimizer, group.get("eps"))
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) in places and broken in (None, places[id(parameter)])
    ]
    divisions = [division for division in found if division is not None]
    most = max(divisions, key=lambda division: division.lost, default=None)
    return most if broken is not None or (most is not None and most.lost) else None


def _division(
    place: int, parameter: torch.Tensor, optimizer: torch.optim.Optimizer, eps: object
) -> Division | None:
    state = optimizer.state.get(parameter, {})
    moments = [state.get(name) for name in _MOMENTS]
    moment = next((m for m in moments if isinstance(m, torch.Tensor)), None)
    if moment is None and not isinstance(eps, float):
        return None
    dtype = parameter.dtype if moment is None else moment.dtype
    return Division(
        optimizer=type(optimizer).__name__,
        eps=eps if isinstance(eps, float) else None,
        dtype=_words(parameter.dtype),
        state_dtype=None if moment is None else _words(dtype),
        eps_in_type=float(torch.tensor(eps, dtype=dtype)) if isinstance(eps, float) else None,
        zeros=0 if moment is None else int((moment == 0).sum()),
        lost=_lost(state.get("exp_avg"), moment, eps),
        len=parameter.numel() if moment is None else moment.numel(),
        tensor=place,
    )


def _lost(first: object, second: object, eps: object) -> int:
    """Elements whose second moment is 0 though the first is not."""
    moments = (first, second)
    if not all(isinstance(m, torch.Tensor) for m in moments) or not isinstance(eps, float):
        return 0
    return int(((second == 0) & (first.abs() > 100 * max(eps, 1e-38))).sum())


def _words(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
