"""Loss scaling: gradients are judged without their scale, and a back-off is no alarm."""

from __future__ import annotations

from typing import Any

import torch


class Scaling:
    """What a ``GradScaler`` has done to the gradients at hand.

    A scaler that is used with ``fused=True`` hands the scale to the optimizer, which divides by it
    itself; with other optimizers it has divided already, or does so when asked.
    """

    def __init__(self, scaler: Any, optimizers: list[torch.optim.Optimizer]) -> None:
        self._scaler = scaler
        self._optimizers = optimizers

    def unscale(self) -> None:
        """Divides the gradients by the scale unless that was done in this step."""
        scaler = self._scaler
        if scaler is None or not scaler.is_enabled():
            return
        for optimizer in self._optimizers:
            if scaler._per_optimizer_states[id(optimizer)]["stage"].name == "READY":
                scaler.unscale_(optimizer)

    def is_fused(self) -> bool:
        """Whether the optimizer divides by the scale itself."""
        return any(getattr(o, "grad_scale", None) is not None for o in self._optimizers)

    def factor(self) -> float:
        """What the gradients are still to be multiplied by."""
        for optimizer in self._optimizers:
            scale = getattr(optimizer, "grad_scale", None)
            if scale is not None:
                return 1.0 / float(scale)
        return 1.0

    def overflowed(self) -> bool:
        """Whether the optimizer is about to leave this step out because of an overflow."""
        for optimizer in self._optimizers:
            count = getattr(optimizer, "found_inf", None)
            if count is not None and float(count) > 0.0:
                return True
        return False
