"""Loss scaling: gradients are judged without their scale, and a back-off is no alarm."""

from __future__ import annotations

import functools
import weakref
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

    def attach(self) -> None:
        """Begins to see the scalers of this process at work."""
        if self._named is None:
            _live.add(self)
            _see_scalers()

    def detach(self) -> None:
        """Sees them no more."""
        _live.discard(self)
        _see_scalers()

    def note(self, scaler: Any, losses: Any) -> None:
        """Takes in that a scaler scales these losses."""
        # One scaler may scale the losses of several models in turn.
        tries = self._tries.get(scaler, 0)
        if tries is not None and tries < _TRIES_MAX and isinstance(losses, torch.Tensor):
            self._tries[scaler] = None if _leads_to(losses, self._parameters) else tries + 1
        if self._tries.get(scaler, 0) is None:
            self._latest = weakref.ref(scaler)

    def end(self) -> None:
        """Ends the step."""
        self._latest = None

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

    def scale(self) -> float | None:
        """The scale of the loss, if it is scaled."""
        scaler = self._scaler()
        return None if scaler is None else float(scaler.get_scale())

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
        states = getattr(self._scaler(), "_per_optimizer_states", {})
        for optimizer in self.optimizers:
            found = states[id(optimizer)]["found_inf_per_device"] if id(optimizer) in states else {}
            if any(float(count) > 0.0 for count in found.values()):
                return True
        for optimizer in self.optimizers:
            count = getattr(optimizer, "found_inf", None)
            if count is not None and float(count) > 0.0:
                return True
        return False


def _leads_to(loss: torch.Tensor, parameters: list[torch.Tensor]) -> bool:
    wanted = {id(parameter) for parameter in parameters}
    return leads_to(
        [loss.grad_fn], lambda node: id(getattr(node, "variable", None)) in wanted, _NODES_MAX
    )


_live: weakref.WeakSet[Scaling] = weakref.WeakSet()
_scale: Any = None
"""torch's own ``GradScaler.scale`` while ours stands in its place."""


def _see_scalers() -> None:
    """Has ``GradScaler.scale`` tell us of its calls while anybody wants to know."""
    global _scale
    if not _live and _scale is not None:
        torch.amp.GradScaler.scale, _scale = _scale, None
    elif _live and _scale is None:
        _scale = original = torch.amp.GradScaler.scale

        @functools.wraps(original)
        def scale(self: Any, outputs: Any) -> Any:
            if self.is_enabled():
                for scaling in list(_live):
                    scaling.note(self, outputs)
            return original(self, outputs)

        torch.amp.GradScaler.scale = scale
