"""Clips other than by the global norm, and the notice that somebody else has clipped before us."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ._core import clip_units

_STEPS = 10
"""Steps in a row at the same norm that no unclipped run shows."""
_SAME = 5e-6


class Ceiling:
    """Counts steps whose gradient norm is the same number."""

    def __init__(self) -> None:
        self.reached_at: int | None = None
        """The first step at which the last ten norms were the same."""
        self._norm = 0.0
        self._steps = 0
        self._ceiling = 0.0

    def see(self, step: int, norm: float) -> None:
        """Takes in the norm of a step."""
        if norm > 0.0 and abs(norm - self._norm) <= _SAME * self._norm:
            self._steps += 1
        else:
            self._norm, self._steps = norm, 1
        if self._steps == _STEPS:
            self._ceiling = norm
            self.reached_at = step if self.reached_at is None else self.reached_at

    def bound(self) -> float | None:
        """The norm to which somebody else clips, once that is known."""
        return None if self.reached_at is None else self._ceiling

    def words(self) -> str:
        """What it means for the guard."""
        return (
            f"the gradients arrive clipped to a norm of {self._ceiling:.4g}, so no norm above it was "
            "seen; to see the true norm, call guard.clip_ instead of clip_grad_norm_"
        )


def limit(name: str, value: float) -> float:
    """The value as a float.

    Raises ``ValueError`` where it is negative or NaN.
    """
    number = float(value)
    if not number >= 0.0:
        raise ValueError(f"{name}: got {number}, want a number of at least 0")
    return number


def by_value(parameters: Iterable[torch.Tensor], largest: float) -> None:
    """Limits every element of the gradients to ``-largest..largest``, in place."""
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.layout == torch.sparse_coo:
            # The sum of an element's entries is what counts, not each of them.
            parameter.grad = gradient = gradient.coalesce()
            gradient = gradient.values()
        if gradient.is_complex():
            gradient = torch.view_as_real(gradient)
        gradient.clamp_(-largest, largest)


def by_unit(parameters: Iterable[torch.Tensor], ratio: float, eps: float) -> None:
    """Scales each unit of the gradients whose norm exceeds ``ratio * max(|W|, eps)``, in place.

    A unit is all weights into one output, row ``i`` of a weight ``[out, in, ...]``; a vector is
    one unit. Sparse gradients stay as they are.

    Source: Brock, De, Smith, Simonyan 2021, equation 3.
    """
    for parameter in parameters:
        gradient, weight = parameter.grad, parameter.detach()
        if gradient is None or gradient.layout != torch.strided:
            continue
        units = gradient.shape[0] if gradient.dim() > 1 else 1
        by_rows = gradient.is_contiguous() and weight.is_contiguous()
        if by_rows and clip_units(gradient, weight, units, ratio, eps):
            torch.autograd.graph.increment_version(gradient)
        else:
            _by_unit_of_torch(gradient, weight, ratio, eps)


def _by_unit_of_torch(
    gradient: torch.Tensor, weight: torch.Tensor, ratio: float, eps: float
) -> None:
    """The same for tensors of any device and type."""
    dims = tuple(range(1, gradient.dim())) if gradient.dim() > 1 else None
    wide = torch.promote_types(gradient.dtype, torch.float32)
    norm, size = (
        torch.linalg.vector_norm(tensor, dim=dims, keepdim=True, dtype=wide)
        for tensor in (gradient, weight)
    )
    limit = ratio * size.clamp_min(eps)
    factor = torch.where(norm > limit, limit / norm, torch.ones_like(limit))
    gradient.mul_(factor.to(gradient.dtype))
