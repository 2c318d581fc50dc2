"""Gradients of the step before that are still there when a backward pass begins."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

_STEPS = 2
"""Steps after the first one that are looked at: a loop that does not clear its gradients never does."""


class LeftGradients:
    """Measures what a step has left in the gradients, which the next one adds to."""

    def __init__(self) -> None:
        self.norm = 0.0
        """Norm of what was left; known after the steps that are looked at."""
        self._parameters: Sequence[torch.Tensor] = ()
        # The loss of another model may come by first, and what it adds to be cleared.
        self._norms: list[float] = []
        self._step_norms: list[float] = []

    def begin(self, step: int, parameters: Sequence[torch.Tensor]) -> None:
        """Has the backward passes of that step looked at, after those of the step before."""
        if self._parameters:
            self._step_norms.append(min(self._norms, default=0.0))
            if len(self._step_norms) == _STEPS:
                self.norm = min(self._step_norms)
        self._norms = []
        self._parameters = parameters if 1 <= step <= _STEPS else ()

    def see_backward(self) -> None:
        """Before a backward pass."""
        if self._parameters:
            gradients = [p.grad for p in self._parameters]
            left = [g for g in gradients if g is not None and g.layout == torch.strided]
            self._norms.append(float(nn.utils.get_total_norm(left)) if left else 0.0)
