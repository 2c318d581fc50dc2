"""Hooks at the outputs of layers, armed for one pass: gains, and the first non-finite value."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from . import _device, _layers
from ._core import Trace
from ._gradients import values_of
from ._names import plain, unwrapped

_CALLS_MAX = 1024
"""Calls of one module in a pass that are layers of their own."""


class Probes:
    """Hooks on every module of a model, for one forward and backward pass at a time.

    A layer is a leaf with a float output (one that lets its input through may not do so in a later
    pass), or a container that does something to the output of its last child (an activation by
    function, a skip connection). A module called several times in a pass is a layer for each call,
    ``cell@0``, ``cell@1``, ...

    The layers of the first pass, in order of execution, stay the layers of the run.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        self.layers: list[_layers.LayerRow] = []
        self.owners: dict[str, int] = {}
        """Layer of a module's dotted path."""
        self.dtype_max: float | None = None
        self._places: dict[tuple[str, int], int] = {}
        self._fixed = False
        self._names = {module: plain(name) for name, module in self.model.named_modules()}
        self._handles: list[Any] = []
        self._trace: Trace | None = None
        self._calls: dict[str, int] = {}
        self._latest: torch.Tensor | None = None
        self._kept: list[tuple[int | None, torch.Tensor]] | None = None
        self._open = False

    @property
    def armed(self) -> bool:
        """Whether hooks are in place."""
        return bool(self._handles)

    def places(self) -> tuple[list[str], list[int]]:
        """The module and the number of the call of each layer, in order."""
        places = sorted(self._places, key=self._places.__getitem__)
        return [name for name, _ in places], [call for _, call in places]

    def check_places(self, modules: list[str]) -> None:
        """Raises ``ValueError`` where the model has no module of a name."""
        known = set(self._names.values())
        for index, name in enumerate(modules):
            if name not in known:
                raise ValueError(
                    f"layer {index}: got module {name!r}, want one of the {len(known)} modules of "
                    "this model; load the state that was saved with it, or go on with a new guard"
                )

    def restore(self, modules: list[str], calls: list[int], *, fixed: bool) -> None:
        """Takes the layers of an interrupted run for those of this one; without any, and not
        ``fixed``, those of the coming pass will be."""
        self.disarm()
        self._trace = None
        self._places = {place: i for i, place in enumerate(zip(modules, calls, strict=True))}
        self._fixed = fixed
        self.layers, self.owners, self.dtype_max = [], {}, None

    def arm(self) -> None:
        """Puts hooks in place for the coming pass."""
        self.disarm()
        self._trace, self._calls, self._latest, self._open = Trace(), {}, None, True
        root = self.model
        self._handles.append(root.register_forward_pre_hook(self._enter, with_kwargs=True))
        for module in self._names:
            self._handles.append(module.register_forward_hook(self._leave))

    def disarm(self) -> None:
        """Takes all hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._latest = None

    def collect(self) -> Trace | None:
        """Takes the hooks away and gives what they saw; ``None`` when no pass came."""
        self.disarm()
        trace, self._trace = self._trace, None
        if trace is None or not len(trace):
            return None
        self._fix()
        return trace

    def replay(self, inputs: Inputs) -> Trace | None:
        """Runs a pass again, forward and back from the gradient that came to its output.

        Parameters, their gradients, buffers and the random state are left as they are.
        """
        self.arm()
        self._kept = []
        try:
            with _unchanged(self.model), inputs.context(), torch.enable_grad():
                output = self.model(*inputs.args, **inputs.kwargs)
                self._read_deltas(first_float(output), inputs.output_gradient)
        finally:
            self._kept = None
            trace = self.collect()
        return trace

    def _read_deltas(self, output: torch.Tensor | None, gradient: torch.Tensor | None) -> None:
        kept = [(layer, tensor) for layer, tensor in self._kept or [] if tensor.requires_grad]
        if output is None or gradient is None or not output.requires_grad or not kept:
            return
        try:
            deltas = torch.autograd.grad(
                output, [tensor for _, tensor in kept], gradient.to(output.dtype), allow_unused=True
            )
        except RuntimeError:
            # An operation in place has overwritten what the backward pass needs.
            return
        for (layer, _), delta in zip(kept, deltas, strict=True):
            if delta is not None:
                self._read_delta(layer, delta)

    def _fix(self) -> None:
        if self._fixed:
            return
        self._fixed = True
        for (name, call), place in self._places.items():
            if call == 0 or name not in self.owners:
                self.owners[name] = place

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if torch.compiler.is_compiling() or _in_backward() or not self._open:
            return
        tensor = first_float((args, kwargs))
        if tensor is not None:
            self._see(None, tensor)

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        if torch.compiler.is_compiling() or _in_backward() or not self._open:
            return
        is_root = module is self.model
        self._open = not is_root
        tensor = first_float(output)
        if tensor is None or (tensor is self._latest and _has_children(module)):
            return
        layer = self._layer_of(module)
        if layer is not None:
            self._latest = tensor
            self._see(layer, tensor)

    def _layer_of(self, module: nn.Module) -> int | None:
        name = self._names.get(module)
        if name is None:
            return None
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        place = self._places.get((name, call))
        if place is not None or self._fixed or call >= _CALLS_MAX:
            return place
        place = len(self.layers)
        self._places[name, call] = place
        cell = next(module.parameters(recurse=False), None) is not None
        title = name or type(module).__name__
        if call == 1:
            first = self._places[name, 0]
            self.layers[first] = _layers.row(f"{title}@0", module, recurrent=cell)
        title = f"{title}@{call}" if call else title
        self.layers.append(_layers.row(title, module, recurrent=bool(call) and cell))
        return place

    def _see(self, layer: int | None, tensor: torch.Tensor) -> None:
        assert self._trace is not None
        seen = tensor.detach()
        if layer is not None and self.dtype_max != torch.finfo(torch.float16).max:
            largest = torch.finfo(tensor.dtype).max
            self.dtype_max = min(largest, self.dtype_max or largest)
        if not self._trace.output(layer, seen):
            self._trace.put_output(layer, _numbers(seen))
        if self._kept is not None:
            if tensor.requires_grad:
                self._kept.append((layer, tensor))
        elif tensor.requires_grad:
            tensor.register_hook(_Delta(self, self._trace, layer))

    def _read_delta(
        self, layer: int | None, delta: torch.Tensor, trace: Trace | None = None
    ) -> None:
        trace = trace or self._trace
        assert trace is not None
        delta = delta.detach()
        if not trace.delta(layer, delta):
            trace.put_delta(layer, _numbers(delta))


class _Delta:
    """A hook at one tensor: reads the gradient that comes to it, and gives nothing back."""

    def __init__(self, probes: Probes, trace: Trace, layer: int | None) -> None:
        self._probes, self._trace, self._layer = probes, trace, layer

    def __call__(self, gradient: torch.Tensor) -> None:
        if self._probes._trace is self._trace:
            self._probes._read_delta(self._layer, gradient, self._trace)


class Inputs:
    """What a pass was called with, and the gradient that came to its output."""

    def __init__(self, args: tuple, kwargs: dict) -> None:
        self.args, self.kwargs = args, kwargs
        self.output_gradient: torch.Tensor | None = None
        self._autocast: list[tuple[str, torch.dtype]] = []
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                self._autocast.append((kind, torch.get_autocast_dtype(kind)))

    def first_float(self) -> torch.Tensor | None:
        """The first float tensor that the model was called with."""
        tensor = first_float(self.args)
        return tensor if tensor is not None or not self.kwargs else first_float(self.kwargs)

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """The autocast that was on."""
        with contextlib.ExitStack() as stack:
            for kind, dtype in self._autocast:
                stack.enter_context(torch.autocast(kind, dtype))
            yield


def first_float(value: Any) -> torch.Tensor | None:
    """The first real float tensor of nested tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], torch.Tensor):
        if value[0].is_floating_point():
            return value[0]
    for leaf in _leaves(value):
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            return leaf
    return None


def _leaves(value: Any) -> Iterator[Any]:
    # Model outputs of other libraries are mappings that torch's pytree may not know.
    if hasattr(value, "values") and callable(value.values) and not isinstance(value, torch.Tensor):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _leaves(item)
    else:
        yield from tree_leaves(value)


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Puts buffers and random states back afterwards."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


def _numbers(tensor: torch.Tensor) -> _device.Numbers:
    return _device.exact(values_of(tensor)[0])
