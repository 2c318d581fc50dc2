"""Loss scaling: gradients are judged without their scale, and an overflow that a lower scale resolves
raises no alarm."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch

from ._calls import leads_to

_NODES_MAX = 100_000
"""Nodes of a loss's graph that are looked at for a parameter."""

_TRIES_MAX = 32
"""Losses of a scaler that are looked at for a way to our parameters."""


class Scaling:
    """What a ``GradScaler`` has done to the gradients at hand.

    A scaler that was not named is known by its call: it has scaled, since the last step, a loss whose
    graph leads to our parameters. One that is used with ``fused=True`` hands the scale to the
    optimizer, which divides by it itself; with other optimizers it has divided already, or does so when
    asked.
    """

    def __init__(
        self,
        scaler: Any,
        optimizers: list[torch.optim.Optimizer],
        parameters: list[torch.Tensor],
    ) -> None:
        self.optimizers = optimizers
        self._named = scaler
        self._parameters = parameters
        # How many of a scaler's losses have led elsewhere; `None` once one has led to us.
        self._tries: weakref.WeakKeyDictionary[Any, int | None] = weakref.WeakKeyDictionary()
        self._latest: weakref.ref[Any] | None = None
        self._losses: list[torch.Tensor] = []
        """What was scaled since the last step, before it was."""
        self.has_opened = False
        """Whether an optimizer has begun its update since a scaler was last asked to make one."""
        self._left_out: Callable[[torch.optim.Optimizer], None] = lambda _: None

    def attach(self, left_out: Callable[[torch.optim.Optimizer], None]) -> None:
        """Begins to see the scalers of this process at work. ``left_out`` is told of each update that one
        of them does not make; it raises nothing."""
        self._left_out = left_out
        _live.add(self)
        _see_scalers()

    def detach(self) -> None:
        """Sees them no more."""
        _live.discard(self)
        _see_scalers()

    def is_used(self) -> bool:
        """Whether a scaler is known."""
        return self._named is not None or self._latest is not None

    def note(self, scaler: Any, losses: Any) -> None:
        """Takes in that a scaler scales these losses."""
        # One scaler may scale the losses of several models in turn.
        tries = self._tries.get(scaler, 0)
        if tries is not None and tries < _TRIES_MAX and isinstance(losses, torch.Tensor):
            self._tries[scaler] = None if _leads_to(losses, self._parameters) else tries + 1
        if self._tries.get(scaler, 0) is None:
            self._latest = weakref.ref(scaler)
            if isinstance(losses, torch.Tensor) and len(self._losses) < _TRIES_MAX:
                self._losses.append(losses.detach())

    def note_step(self, scaler: Any, optimizer: torch.optim.Optimizer) -> None:
        """Takes in that a scaler was asked to make an optimizer's update. If the update has not begun, the
        scaler may have left it out."""
        is_own = any(own is optimizer for own in self.optimizers)
        # Reading what a device has found waits for it.
        if is_own and not self.has_opened and _found_inf(scaler, optimizer):
            # A subclass may have a `scale` of its own, which we do not see.
            self._latest = weakref.ref(scaler)
            self._left_out(optimizer)

    def is_of_scale(self) -> bool:
        """Whether an overflow of this step may be due to the scale alone: the losses are finite, as far as
        they are known, and the scale is above 1 or not known."""
        if self._scaler() is None and not self.is_fused():
            return True
        scale = self.scale() if self._scaler() is not None else 1.0 / self.factor()
        return scale > 1.0 and all(bool(loss.isfinite().all()) for loss in self._losses)

    def end(self) -> None:
        """Ends the step."""
        self._latest, self._losses = None, []

    def unscale(self) -> None:
        """Divides the gradients by the scale unless that was done in this step."""
        scaler = self._scaler()
        if scaler is None:
            return
        for optimizer in self.optimizers:
            is_ready = scaler._per_optimizer_states[id(optimizer)]["stage"].name == "READY"
            groups = optimizer.param_groups
            if is_ready and any(p.grad is not None for group in groups for p in group["params"]):
                scaler.unscale_(optimizer)

    def _scaler(self) -> Any:
        """The scaler at work in this step."""
        scaler = self._named
        if scaler is None and self._latest is not None:
            scaler = self._latest()
        return scaler if scaler is not None and scaler.is_enabled() else None

    def scale(self) -> float:
        """What the loss is multiplied by."""
        scaler = self._scaler()
        return 1.0 if scaler is None else float(scaler.get_scale())

    def is_fused(self) -> bool:
        """Whether the optimizer divides by the scale itself."""
        return any(getattr(o, "grad_scale", None) is not None for o in self.optimizers)

    def factor(self) -> float:
        """What the gradients are still to be multiplied by."""
        for optimizer in self.optimizers:
            scale = getattr(optimizer, "grad_scale", None)
            if scale is not None:
                return 1.0 / float(scale)
        return 1.0

    def overflowed(self) -> bool:
        """Whether an optimizer leaves this step out because of an overflow: the gradients of one may
        overflow and those of another not."""
        scaler = self._scaler()
        for optimizer in self.optimizers:
            if scaler is not None and _found_inf(scaler, optimizer):
                return True
            count = getattr(optimizer, "found_inf", None)
            if count is not None and float(count) > 0.0:
                return True
        return False


def _found_inf(scaler: Any, optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scaler has found an optimizer's gradients not to be finite in this step."""
    states = getattr(scaler, "_per_optimizer_states", {})
    found = states[id(optimizer)]["found_inf_per_device"] if id(optimizer) in states else {}
    return any(float(count) > 0.0 for count in found.values())


def _leads_to(loss: torch.Tensor, parameters: list[torch.Tensor]) -> bool:
    wanted = {id(parameter) for parameter in parameters}
    return leads_to(
        [loss.grad_fn], lambda node: id(getattr(node, "variable", None)) in wanted, _NODES_MAX
    )


_live: weakref.WeakSet[Scaling] = weakref.WeakSet()
_originals: tuple[Any, Any] | None = None
"""torch's own ``GradScaler.scale`` and ``GradScaler.step`` while ours stand in their place."""


def _see_scalers() -> None:
    """Has ``GradScaler`` tell us of its calls while anybody wants to know."""
    global _originals
    scalers = torch.amp.GradScaler
    if not _live and _originals is not None:
        (scalers.scale, scalers.step), _originals = _originals, None
    elif _live and _originals is None:
        _originals = original_scale, original_step = scalers.scale, scalers.step

        @functools.wraps(original_scale)
        def scale(self: Any, outputs: Any) -> Any:
            if self.is_enabled():
                for scaling in list(_live):
                    scaling.note(self, outputs)
            return original_scale(self, outputs)

        @functools.wraps(original_step)
        def step(self: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
            scalings = list(_live) if self.is_enabled() else []
            for scaling in scalings:
                scaling.has_opened = False
            result = original_step(self, optimizer, *args, **kwargs)
            for scaling in scalings:
                scaling.note_step(self, optimizer)
            return result

        scalers.scale, scalers.step = scale, step
