"""The update of a step: estimated from a sample, or measured against a copy that can be put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from . import _device, _gradients
from ._amp import Scaling
from ._core import COPY_KEPT_STEPS, Sampler, Scan, Updates
from ._core import Guard as Core
from ._optimizers import needs_closure
from ._ranks import Ranks
from ._rate import Rate
from ._state import StateCopy


class UpdateWatch:
    """Looks at what the optimizers make of a step.

    A copy of the parameters and of the optimizers' state is taken only where the core says that the
    update may have to be taken back; else, and in observe mode, a sample of each parameter is.
    """

    def __init__(
        self,
        parameters: list[torch.Tensor],
        optimizers: list[torch.optim.Optimizer],
        *,
        ranks: Ranks,
        scaling: Scaling,
        samples: bool,
    ) -> None:
        self._parameters, self._optimizers = parameters, optimizers
        self._ranks, self._scaling = ranks, scaling
        self._samples = samples
        self._sampler, self._updates = Sampler(), Updates()
        self._is_sampled = False
        self._copy: StateCopy | None = None
        self._is_copied = False
        self._steps_without = 0
        self.is_repeating = False
        """Whether an update is being made anew, of which hooks shall take no notice."""
        self.before_undo: Callable[[], None] | None = None
        """Is called when an update is about to be taken back."""
        self.is_in_closure = False
        """Whether that closure is being evaluated."""
        self.evaluations = 0
        """How often the closure of the optimizer's step at hand was evaluated."""

    def forget(self) -> None:
        """Lets go of what was kept of other parameters or optimizers."""
        self._copy, self._is_copied, self._is_sampled = None, False, False

    def before(self, step: int, gradients: Scan, *, copies: bool, measures: bool) -> None:
        """Before the update of a step from these gradients."""
        self._is_copied = copies
        self._steps_without = 0 if copies else self._steps_without + 1
        if self._steps_without > COPY_KEPT_STEPS:
            self._copy = None
        if copies:
            if self._copy is None:
                self._copy = StateCopy(self._parameters, self._optimizers)
            self._copy.take()
        elif self._samples and measures:
            self._sampler.take(self._parameters, step, gradients)
            self._is_sampled = True

    def after(self, core: Core, scan: Scan, rate: Rate) -> bool:
        """After an update; says whether it was undone."""
        if not self._is_copied or self._copy is None:
            if self._is_sampled:
                self._sampler.measure(self._parameters, self._updates)
                self._keep_what_broke()
            core.observe_update(self._updates if self._is_sampled else None, can_undo=False)
            self._is_sampled = False
            return False
        self._measure(self._copy)
        self._keep_what_broke()
        verdict = core.observe_update(self._updates)
        if verdict is None:
            return False
        if self.before_undo is not None:
            self.before_undo()
        self._copy.restore()
        if verdict > 0.0:
            if self._can_step_again():
                _gradients.scale(scan, self._parameters, verdict)
                self._step_again(core, rate)
                self._measure(self._copy)
            else:
                self._updates.put(0, 0.0, 0.0, 1, 1)
            if core.observe_shrunk_update(self._updates):
                return False
            self._copy.restore()
        return True

    def _keep_what_broke(self) -> None:
        """What an optimizer does in several evaluations of one step is not one update: its size says
        nothing, and only what it has broken does."""
        if self.evaluations <= 1:
            return
        rows = [self._updates.get(index) for index in range(len(self._updates))]
        self._updates.clear(len(rows))
        for index, row in enumerate(rows):
            if row is not None and row[3]:
                self._updates.put(index, *row)

    def _measure(self, copied: StateCopy) -> None:
        before = [
            copy if parameter.grad is not None or parameter.requires_grad else None
            for copy, parameter in zip(copied.parameters, self._parameters, strict=True)
        ]
        measure(self._updates, before, self._parameters)
        self._ranks.combine_updates(self._updates)

    def _can_step_again(self) -> bool:
        return not self._scaling.is_fused() and not any(map(needs_closure, self._optimizers))

    def _step_again(self, core: Core, rate: Rate) -> None:
        """Lets the optimizers make the update anew, without the hooks of others."""
        self.is_repeating = True
        try:
            for optimizer in self._optimizers:
                rate.lower(optimizer, core.learning_rate_factor())
                inner: Any = getattr(type(optimizer).step, "__wrapped__", None)
                inner(optimizer) if inner is not None else optimizer.step()
        finally:
            rate.restore()
            self.is_repeating = False


def measure(
    updates: Updates, before: list[torch.Tensor | None], parameters: list[torch.Tensor]
) -> None:
    """Measures the updates from copies to parameters of any kind; ``None`` leaves a parameter out."""
    elsewhere = updates.measure(before, parameters)
    pairs = [
        tuple(_gradients.values_of(t.detach())[0] for t in (before[i], parameters[i]))
        for i in elsewhere
    ]
    for index, row in zip(elsewhere, _device.updates(pairs), strict=True):
        updates.put(index, *row)
