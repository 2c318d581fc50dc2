"""Before the first update: one pass and one step on copies of a model, judged by the core."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import _gradients, _layout
from ._buffers import CalmBuffers
from ._core import Preflight as Core
from ._core import Scan, Updates, critical_multiple
from ._probes import Probes, watching
from ._state import random_state, set_random_state
from ._update import measure
from .diagnosis import Report


@dataclass(frozen=True)
class LayerGain:
    """The gains of one layer. Forward: the RMS of its output over the RMS of its input. Backward: the
    norm of the gradient at its input over the norm at its output. NaN if unknown."""

    name: str
    forward: float
    backward: float
    is_marked: bool
    """Whether a gain lies outside [0.5, 2], and not by design."""


class Preflight(Report):
    """What one pass on one batch shows before training, and, if an optimizer was given, the first
    update.

    ``str()`` gives all of it as text, and IPython shows the same.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self.loss = core.loss
        """Loss of the batch."""
        self.gradient_norm = core.gradient_norm
        """L2 norm of the gradient; NaN when it has elements that are not finite."""
        self.nonfinite_at = core.nonfinite_at
        """Where the first non-finite number appears, in the forward or the backward pass: a layer, the
        input, the loss, or the gradient of a parameter."""
        self.headroom_bits = core.headroom_bits
        """Powers of 2 between the largest output or gradient and the largest number of its type."""
        self.update_name, self.update_ratio = core.first_update or (None, None)
        """The weight matrix that the first step changes most, and the change relative to its size."""
        self.critical_multiple = core.critical_multiple
        """The smallest multiple of the first step that raises the loss of the batch: infinite if 4
        times the step does not, 0 if 1/65,536 of it does."""
        self.problems = core.warnings()
        """Reasons not to start."""

    @property
    def ok(self) -> bool:
        """Whether there is no reason not to start."""
        return not self.problems

    @property
    def layers(self) -> list[LayerGain]:
        """The layers in order of execution."""
        return [
            LayerGain(
                name,
                math.nan if forward is None else forward,
                math.nan if backward is None else backward,
                is_marked,
            )
            for name, forward, backward, is_marked in self._core.gains()
        ]

    def __repr__(self) -> str:
        return f"Preflight(ok={self.ok}, problems={self.problems!r})"


def preflight(
    model: nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
) -> Preflight:
    """Runs one pass on a copy of the model and reports what would go wrong.

    ``loss_fn(model, batch)`` returns the loss. If an optimizer is given, a copy of it takes one step on
    the copied model, and up to 16 more forward passes find the largest multiple of that step that
    lowers the loss. The model, its gradients and buffers, and the random state are unchanged.
    """
    chance = random_state()
    try:
        twin, twin_optimizer = copy.deepcopy((model, optimizer))
        twin.zero_grad(set_to_none=True)
        probes = Probes(twin)
        with torch.enable_grad():
            with watching(probes):
                loss = loss_fn(twin, batch)
                loss.backward()
            trace = probes.collect()
            trained = [(n, p) for n, p in twin.named_parameters() if p.requires_grad]
            parameters = [parameter for _, parameter in trained]
            rows = [_layout.row(p, name, probes.owners) for name, p in trained]
            scan = Scan()
            _gradients.read(scan, parameters)
            updates = multiple = None
            if twin_optimizer is not None:
                step = _FirstStep(parameters, twin_optimizer)
                updates = step.updates
                multiple = step.critical_multiple(
                    loss.detach(), lambda: _repeated(loss_fn, twin, batch, chance)
                )
    finally:
        set_random_state(chance)
    return Preflight(
        Core(
            rows,
            probes.layers,
            scan,
            loss=float(loss.detach()),
            trace=trace,
            updates=updates,
            critical_multiple=multiple,
            dtype_max=probes.dtype_max or _layout.dtype_max(parameters),
        )
    )


def _repeated(
    loss_fn: Callable[..., torch.Tensor], twin: nn.Module, batch: Any, chance: Any
) -> float:
    """The loss of the batch by the parameters as they are, with the first pass's random numbers."""
    set_random_state(chance)
    buffers = CalmBuffers(twin)
    try:
        return float(loss_fn(twin, batch).detach())
    except Exception:
        # The weights may be far outside of what the model is made for, and some check their values.
        return math.nan
    finally:
        buffers.restore()


class _FirstStep:
    """The step that an optimizer takes on parameters, and its multiples."""

    @torch.no_grad()
    def __init__(self, parameters: list[torch.Tensor], optimizer: torch.optim.Optimizer) -> None:
        self._parameters = parameters
        self._before = [p.detach().clone() for p in parameters]
        optimizer.step()
        self._after = [p.detach().clone() for p in parameters]
        self.updates = Updates()
        measure(self.updates, self._before, parameters)

    def critical_multiple(self, loss: torch.Tensor, loss_now: Callable[[], float]) -> float | None:
        """The smallest multiple of the step that raises the loss."""

        def loss_at(multiple: float) -> float:
            with torch.no_grad():
                for now, old, new in zip(self._parameters, self._before, self._after, strict=True):
                    now.copy_(old + (new - old) * multiple)
            return loss_now()

        return critical_multiple(float(loss), torch.finfo(loss.dtype).eps, loss_at)
