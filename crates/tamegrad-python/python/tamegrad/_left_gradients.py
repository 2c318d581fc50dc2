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
        """Norm of what was left, in the latest step that was looked at."""
        self._parameters: Sequence[torch.Tensor] = ()

    def expect(self, step: int, parameters: Sequence[torch.Tensor]) -> None:
        """Has the first backward pass of that step looked at."""
        self._parameters = parameters if 1 <= step <= _STEPS else ()

    def see_backward(self) -> None:
        """Before a backward pass."""
        parameters, self._parameters = self._parameters, ()
        left = [p.grad for p in parameters if p.grad is not None and p.grad.layout == torch.strided]
        if left:
            self.norm = float(nn.utils.get_total_norm(left))
