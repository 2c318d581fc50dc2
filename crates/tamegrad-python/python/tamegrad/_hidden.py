"""Gradients that an optimizer shall not see: without them it touches neither parameters nor state."""

from __future__ import annotations

import torch


class HiddenGradients:
    """Takes the gradients away for the time of an optimizer's step."""

    def __init__(self) -> None:
        self._hidden: list[tuple[torch.Tensor, torch.Tensor]] = []

    def hide(self, optimizer: torch.optim.Optimizer) -> None:
        """Sets ``.grad`` of the optimizer's parameters to ``None``."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._hidden.append((parameter, parameter.grad))
                    parameter.grad = None

    def show(self) -> None:
        """Puts the same tensors back, where no other has come meanwhile."""
        for parameter, gradient in self._hidden:
            if parameter.grad is None:
                parameter.grad = gradient
        self._hidden = []
