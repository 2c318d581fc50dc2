"""Standardised regression targets; outputs are put back on the scale of the data for evaluation."""

from __future__ import annotations

from typing import Any

import torch

from ..batches import map_target, target_of
from ..change import CannotApply

KIND = "scale-target"
FAMILY = "scale"


def apply(change, trial, model, optimizers) -> None:
    """Scales the last floating-point tensor of a batch, and the model's outputs in evaluation."""
    if not trial.uses("batches"):
        raise CannotApply("take the batches from trial.batches(loader)")
    scale = TargetScale()
    trial.before_batches(scale.learn)
    trial.on_batch(scale)
    model.register_forward_hook(scale.put_back)


class TargetScale:
    """Mean and standard deviation of the targets, from the first batches."""

    def __init__(self) -> None:
        self._mean, self._std = 0.0, 1.0

    def learn(self, batches: list[Any]) -> None:
        """Takes in the first batches."""
        targets = [target for batch in batches if (target := target_of(batch)) is not None]
        if not targets:
            raise CannotApply("a batch has no floating-point target as its last part")
        values = torch.cat([target.detach().double().flatten() for target in targets])
        values = values[torch.isfinite(values)]
        self._mean, self._std = float(values.mean()), max(float(values.std()), 1e-12)

    def __call__(self, batch: Any) -> Any:
        return map_target(lambda target: (target - self._mean) / self._std, batch)

    def put_back(self, module: torch.nn.Module, inputs: Any, output: Any) -> Any:
        """A forward hook: in evaluation, the output on the scale of the data."""
        trains = module.training and torch.is_grad_enabled()
        if trains or not isinstance(output, torch.Tensor):
            return None
        return output * self._std + self._mean
