"""Runs a pass again to see its layers, and puts back what that has moved."""

from __future__ import annotations

from typing import Any

import torch

from ._calls import Call, tensors_of
from ._core import Trace
from ._names import unwrapped
from ._probes import Probes
from ._put_back import Moved, putting_back
from ._taps import compiled_call

__all__ = ["Moved", "repeat"]


def repeat(probes: Probes, calls: list[Call]) -> tuple[Trace | None, Moved]:
    """Runs these calls again, forward and back from the gradients that came to their outputs.

    Parameters, their gradients, buffers, random states and the state that the modules hold are left as
    they were; what was moved besides random states and buffers is told.
    """
    chosen = _one_of_each(calls)
    modules = [probes.model, *(call.module for call in chosen)]
    with putting_back(modules) as moved, torch.enable_grad():
        probes.arm(keeps_outputs=True)
        try:
            outputs: list[torch.Tensor] = []
            gradients: list[torch.Tensor] = []
            for call in chosen:
                module = unwrapped(call.module)
                # A compiled call would hide the layers.
                run = module if compiled_call(module) is None else module._call_impl
                with call.context():
                    output = run(*call.args, **call.kwargs)
                for place, tensor in enumerate(tensors_of(output)):
                    gradient = call.gradients.get(place)
                    if gradient is not None and tensor.requires_grad:
                        outputs.append(tensor)
                        gradients.append(gradient.to(tensor.dtype))
            probes.read_deltas(outputs, gradients)
        finally:
            trace = probes.collect()
    return trace, moved


def _one_of_each(calls: list[Call]) -> list[Call]:
    """The last call of each module, or the one that was broken, in the order of the calls."""
    chosen: dict[Any, Call] = {}
    for call in calls:
        before = chosen.get(call.module)
        if before is None or not _is_broken(before):
            chosen[call.module] = call
    return [call for call in calls if chosen[call.module] is call]


def _is_broken(call: Call) -> bool:
    tensors = [*(tensor for _, tensor in call.inputs), *call.gradients.values()]
    return not all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
