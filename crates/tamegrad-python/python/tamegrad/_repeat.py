"""Runs a pass or a whole step again, and puts back what that has moved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ._calls import Call, tensors_of
from ._core import Trace
from ._finder import Finder
from ._names import unwrapped
from ._probes import Probes
from ._put_back import Moved, putting_back
from ._taps import compiled_call

__all__ = ["Moved", "StepFn", "repeat", "repeat_step"]

StepFn = Callable[[Any, Any], Any]
"""Runs the model on a batch and gives the loss."""


def repeat(
    probes: Probes,
    calls: list[Call],
    *,
    finder: Finder | None = None,
    parameters: Sequence[torch.Tensor] = (),
) -> tuple[Trace | None, list[torch.Tensor], Moved]:
    """Runs these calls again, forward and back from the gradients that came to their outputs; returns
    what was seen of the layers and the gradients of the parameters.

    Parameters, their gradients, buffers, random states and the state that the modules hold are left as
    they were; what was moved besides random states and buffers is told.

    Raises ``RuntimeError`` where a call gives other than finite outputs and did not before, or the other
    way round.
    """
    chosen = _one_of_each(calls)
    modules = [probes.model, *(call.module for call in chosen)]
    found: list[torch.Tensor] = []
    with putting_back(modules) as moved, torch.enable_grad(), _under(finder):
        probes.arm(keeps_outputs=True)
        try:
            outputs: list[torch.Tensor] = []
            gradients: list[torch.Tensor] = []
            given_out: list[Any] = []
            for call in chosen:
                module = unwrapped(call.module)
                # A compiled call would hide the layers.
                run = module if compiled_call(module) is None else module._call_impl
                try:
                    with call.context():
                        output = run(*call.args, **call.kwargs)
                except Exception:
                    if not call.has_raised:
                        raise
                    # As before: what its layers have given is known.
                    break
                if not call.agrees_with(output):
                    raise RuntimeError(
                        "the repeated pass is finite where the first one was not, or the other way round"
                    )
                given_out.append(output)
                for place, tensor in enumerate(tensors_of(output)):
                    gradient = call.gradients.get(place)
                    if gradient is not None and tensor.requires_grad:
                        outputs.append(tensor)
                        gradients.append(gradient.to(tensor.dtype))
            if finder is not None:
                finder.end_forward(given_out, gradients)
            keeps_graph = finder is not None
            found = probes.read_deltas(outputs, gradients, parameters, keeps_graph=keeps_graph)
        finally:
            trace = probes.collect()
    return trace, found, moved


def repeat_step(
    step_fn: StepFn,
    model: nn.Module,
    batch: Any,
    *,
    finder: Finder,
    parameters: Sequence[torch.Tensor],
    scale: float,
) -> Moved:
    """Runs a whole step again, the loss and its backward pass from this scale of it, and leaves all as
    ``repeat`` does."""
    model = unwrapped(model)
    with putting_back([model], also=(step_fn, batch)) as moved, torch.enable_grad(), _under(finder):
        loss = _loss_of(step_fn(model, batch))
        gradient = torch.full_like(loss, scale)
        finder.end_forward(loss, [gradient])
        wanted = [parameter for parameter in parameters if parameter.requires_grad]
        if finder.outputs_are_finite and loss.requires_grad:
            torch.autograd.grad(loss, wanted, gradient, retain_graph=True, allow_unused=True)
    return moved


@contextlib.contextmanager
def _under(finder: Finder | None):
    if finder is None:
        yield
        return
    try:
        with finder:
            yield
    except BaseException:
        finder.give_up()
        raise


def _loss_of(output: Any) -> torch.Tensor:
    """The loss in what a step gives: itself, ``loss`` of a mapping or an object, or the first of several."""
    if isinstance(output, Mapping):
        output = output["loss"]
    elif isinstance(output, (tuple, list)):
        output = output[0]
    elif not isinstance(output, torch.Tensor):
        output = getattr(output, "loss", None)
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"step_fn: got {type(output).__name__}, want the loss as a tensor")
    return output


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
