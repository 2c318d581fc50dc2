"""What the layers of a model give and get in one forward and backward pass: gains, and the first
non-finite value."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from . import _device, _layers
from ._calls import first_float, leads_to, tensors_of
from ._core import Trace
from ._gradients import values_of
from ._names import plain, unwrapped
from ._numbers import Numbers
from ._taps import Taps, is_plain_call
from ._time_steps import STEPS_MIN, TimeSteps, is_fed, time_steps

_CALLS_MAX = 1024
"""Calls of one module in a pass that are layers of their own."""
_NODES_MAX = 10_000
"""Nodes of the graph that are looked at on the way from an input to an earlier output."""
_NOTHING: Numbers = (0, 0, 0, 0, 0.0, 0.0, 0.0)


class Probes:
    """Looks at the modules' calls of one forward and backward pass at a time.

    A layer is a leaf with a float output (one that lets its input through may not do so in a later
    pass), or a container that does something to the output of its last child (an activation by
    function, a skip connection). A module called several times in a pass is a layer for each call,
    ``cell@0``, ``cell@1``, ...; it is a recurrence where a call is given what the one before has made.

    The layers of the first pass, in order of execution, stay the layers of the run. A pass may be made
    of several calls by the loop, of a model's parts; it ends where one of them is called again.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        self.layers: list[_layers.LayerRow] = []
        self.owners: dict[str, int] = {}
        """Layer of a module's dotted path."""
        self.dtype_max: float | None = None
        self.names = {module: plain(name) for name, module in self.model.named_modules()}
        """Dotted path of each module; empty for the model itself."""
        self._places: dict[tuple[str, int], int] = {}
        self._fixed = False
        self._trace: Trace | None = None
        self._outer: set[nn.Module] = set()
        self._calls: dict[str, int] = {}
        self._first_nodes: dict[str, Any] = {}
        self._latest: torch.Tensor | None = None
        self._kept: list[tuple[int | None, torch.Tensor]] | None = None
        self._made: dict[nn.Module, list[tuple[list[torch.Tensor], torch.Tensor]]] = {}
        """What each module with weights of its own was given and has made, call for call."""
        self.time_steps: TimeSteps | None = None
        """How the gradient has grown over the calls of one layer, in the latest pass whose outputs were
        kept."""
        self._open = False
        self.armed = False
        """Whether calls are looked at."""

    def places(self) -> tuple[list[str], list[int]]:
        """The module and the number of the call of each layer, in order."""
        places = sorted(self._places, key=self._places.__getitem__)
        return [name for name, _ in places], [call for _, call in places]

    def check_places(self, modules: list[str]) -> None:
        """Raises ``ValueError`` where the model has no module of a name."""
        known = set(self.names.values())
        for index, name in enumerate(modules):
            if name not in known:
                raise ValueError(
                    f"layer {index}: got module {name!r}, want one of the {len(known)} modules of "
                    "this model; load the state that was saved with it, or start with a new guard"
                )

    def restore(self, modules: list[str], calls: list[int], *, fixed: bool) -> None:
        """Takes the layers of an interrupted run for those of this one; without any, and not
        ``fixed``, those of the coming pass will be."""
        self.disarm()
        self._trace = None
        self._places = {place: i for i, place in enumerate(zip(modules, calls, strict=True))}
        self._fixed = fixed
        self.layers, self.owners, self.dtype_max = [], {}, None

    def arm(self, *, keeps_outputs: bool = False) -> None:
        """Looks at the coming pass. The gradients of the outputs are read as they come, or by
        :meth:`read_deltas` where the outputs are kept."""
        self.disarm()
        # Layers may have been exchanged since the last look.
        self.names = {module: plain(name) for name, module in self.model.named_modules()}
        self._trace, self._open, self.armed = Trace(), True, True
        self.time_steps = None
        self._kept = [] if keeps_outputs else None

    def disarm(self) -> None:
        """Looks at no pass."""
        self._latest, self._kept = None, None
        self._outer, self._calls, self._first_nodes = set(), {}, {}
        self._made = {}
        self._open = self.armed = False

    def collect(self) -> Trace | None:
        """Ends the pass and gives what was seen of it; ``None`` when no pass came."""
        self.disarm()
        trace, self._trace = self._trace, None
        if trace is None or not len(trace):
            return None
        self._fix()
        return trace

    def read_deltas(
        self,
        outputs: list[torch.Tensor],
        gradients: list[torch.Tensor],
        parameters: Sequence[torch.Tensor] = (),
        *,
        keeps_graph: bool = False,
    ) -> list[torch.Tensor]:
        """Reads the gradients of the outputs that were kept, on the way back from these; gives those of
        the parameters."""
        kept = [(layer, tensor) for layer, tensor in self._kept or [] if tensor.requires_grad]
        looped = self._looped()
        repeated = self._made.get(looped, []) if looped is not None else []
        ends = [tensor for _, tensor in repeated[:1] + repeated[-1:]]
        wanted = [tensor for _, tensor in kept] + ends
        own = len(wanted)
        wanted += [p for p in parameters if p.requires_grad]
        if not outputs or not wanted:
            return []
        try:
            found = torch.autograd.grad(
                outputs, wanted, gradients, retain_graph=keeps_graph or None, allow_unused=True
            )
        except torch.OutOfMemoryError:
            # Without those of the parameters there may be room.
            return self.read_deltas(outputs, gradients) if keeps_graph and parameters else []
        except RuntimeError:
            # An operation in place has overwritten what the backward pass needs.
            return []
        for (layer, _), delta in zip(kept, found, strict=False):
            if delta is not None:
                self._read_delta(layer, delta)
        deltas = found[len(kept) : own]
        if looped is not None and all(delta is not None for delta in deltas):
            layer = self.owners.get(self.names.get(looped, ""))
            self.time_steps = time_steps(layer, len(repeated), deltas[:1], deltas[1:])
        return [gradient for gradient in found[own:] if gradient is not None]

    def _looped(self) -> nn.Module | None:
        """The module that was called most often, the last time with what has come of the first."""

        def is_looped(module: nn.Module) -> bool:
            calls = self._made[module]
            has_graph = all(tensor.requires_grad for _, tensor in calls)
            is_long = len(calls) >= STEPS_MIN
            return is_long and has_graph and is_fed(calls[-1][0], calls[0][1])

        found = filter(is_looped, self._made)
        return max(found, key=lambda module: len(self._made[module]), default=None)

    def _fix(self) -> None:
        if self._fixed:
            return
        self._fixed = True
        for (name, call), place in self._places.items():
            if call == 0 or name not in self.owners:
                self.owners[name] = place

    # --- calls ---------------------------------------------------------------------------------

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], outer: bool) -> None:
        """Before a call; ``outer`` is one that the loop makes."""
        if not outer or not self._open:
            return
        if module in self._outer:
            self._open = False
            return
        tensor = first_float((args, kwargs))
        if not self._outer and tensor is not None:
            self._see(None, tensor)
            self._latest = tensor
        self._outer.add(module)

    def leave(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """After a call."""
        tensor = first_float(output) if self._open else None
        if tensor is None or (tensor is self._latest and _has_children(module)):
            return
        own, given = first_float((args, kwargs)), tensors_of((args, kwargs))
        if self._kept is not None and next(module.parameters(recurse=False), None) is not None:
            self._made.setdefault(module, []).append((given, tensor))
        layer = self._layer_of(module, given, tensor)
        if layer is not None:
            self._see(layer, tensor)
            if own is not self._latest:
                self._see_input(layer, own)
            self._latest = tensor

    def _layer_of(
        self, module: nn.Module, given: list[torch.Tensor], output: torch.Tensor
    ) -> int | None:
        name = self.names.get(module)
        if name is None:
            return None
        call = self._calls.get(name, 0)
        self._calls[name] = call + 1
        place = self._places.get((name, call))
        if place is not None or self._fixed or call >= _CALLS_MAX:
            return place
        place = len(self.layers)
        self._places[name, call] = place
        title = name or type(module).__name__
        if call == 0:
            self._first_nodes[name] = output.grad_fn
            self.layers.append(_layers.row(title, module))
            return place
        first = self._places[name, 0]
        if call == 1:
            has_weights = next(module.parameters(recurse=False), None) is not None
            nodes, made_by = [tensor.grad_fn for tensor in given], self._first_nodes[name]
            recurrent = has_weights and leads_to(nodes, lambda node: node is made_by, _NODES_MAX)
            self.layers[first] = _layers.row(f"{title}@0", module, recurrent=recurrent)
        recurrent = _layers.is_recurrent(self.layers[first])
        self.layers.append(_layers.row(f"{title}@{call}", module, recurrent=recurrent))
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
        elif tensor.grad_fn is not None:
            tensor.register_hook(_Delta(self, self._trace, layer))

    def _see_input(self, layer: int, own: torch.Tensor | None) -> None:
        """Reads the input of a layer that is not the output of the layer before it. An input that is
        no float tensor, as an embedding's, has no size."""
        assert self._trace is not None
        if own is None:
            self._trace.put_input(layer, _NOTHING)
        elif not self._trace.input(layer, own.detach()):
            self._trace.put_input(layer, _numbers(own.detach()))

    def _read_delta(
        self, layer: int | None, delta: torch.Tensor, trace: Trace | None = None
    ) -> None:
        trace = trace or self._trace
        assert trace is not None
        delta = delta.detach()
        if not trace.delta(layer, delta):
            trace.put_delta(layer, _numbers(delta))


@contextlib.contextmanager
def watching(probes: Probes) -> Iterator[None]:
    """Shows all calls within to the probes."""
    taps = Taps(_OnePass(probes))
    probes.arm()
    taps.set(probes.names)
    try:
        yield
    finally:
        taps.set(())


class _OnePass:
    """Passes calls on to the probes, and knows which of them lie within others."""

    def __init__(self, probes: Probes) -> None:
        self._probes = probes
        self._depth = 0

    def sees(self) -> bool:
        return is_plain_call(self._depth > 0)

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._probes.enter(module, args, kwargs, self._depth == 0)
        self._depth += 1

    def leave(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        self._depth -= 1
        self._probes.leave(module, args, kwargs, output)

    def abandon(self) -> None:
        self._depth -= 1


class _Delta:
    """A hook at one tensor: reads the gradient that comes to it, and gives nothing back. It does not hold
    the probes, which hold nodes of the graph that holds it: Python could never free them."""

    def __init__(self, probes: Probes, trace: Trace, layer: int | None) -> None:
        self._probes, self._trace, self._layer = weakref.ref(probes), trace, layer

    def __call__(self, gradient: torch.Tensor) -> None:
        probes = self._probes()
        if probes is not None and probes._trace is self._trace:
            probes._read_delta(self._layer, gradient, self._trace)


def _has_children(module: nn.Module) -> bool:
    return next(module.children(), None) is not None


def _numbers(tensor: torch.Tensor) -> Numbers:
    return _device.exact(values_of(tensor)[0])
