"""Standardised inputs, by what the first training batches show."""

from __future__ import annotations

from typing import Any

import torch

KIND = "scale-input"
FAMILY = "scale"

_CALLS = 32
"""Training batches from which mean and spread are averaged."""


def apply(change, trial, model, optimizers) -> None:
    """Scales what the model is called with, in training and evaluation."""
    model.register_forward_pre_hook(InputScale())


class InputScale:
    """Standardises each column of a table, or each channel of an image."""

    def __init__(self) -> None:
        self._seen = 0
        self._mean = self._square = torch.zeros(())

    def __call__(self, module: torch.nn.Module, inputs: tuple[Any, ...]) -> Any:
        if not inputs or not isinstance(inputs[0], torch.Tensor):
            return None
        x, *others = inputs
        if not x.is_floating_point() or x.dim() < 2:
            return None
        if module.training and torch.is_grad_enabled() and self._seen < _CALLS:
            self._learn(x.detach())
        if not self._seen:
            return None
        std = (self._square - self._mean.square()).clamp_min(0.0).sqrt()
        std = torch.where(std > 1e-6 * std.max(), std, torch.ones_like(std))
        shape = self._shape(x)
        mean, std = (s.to(x.device, x.dtype).view(shape) for s in (self._mean, std))
        return ((x - mean) / std, *others)

    def _learn(self, x: torch.Tensor) -> None:
        axis = self._axis(x)
        flat = x.double().movedim(axis, -1).reshape(-1, x.shape[axis]).cpu()
        flat = flat[torch.isfinite(flat).all(1)]
        if not len(flat):
            return
        self._seen += 1
        part = 1.0 / self._seen
        self._mean = self._mean + part * (flat.mean(0) - self._mean)
        self._square = self._square + part * (flat.square().mean(0) - self._square)

    @staticmethod
    def _axis(x: torch.Tensor) -> int:
        return 1 if x.dim() >= 4 else x.dim() - 1

    def _shape(self, x: torch.Tensor) -> list[int]:
        shape = [1] * x.dim()
        shape[self._axis(x)] = -1
        return shape
