"""Calls of the model: what it was given, by name, and the gradients that came to its outputs."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import inspect
import operator
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

_KEPT_MAX = 1 << 22
"""Bytes of the memory of an output that is kept until the next call."""
_TENSORS_MAX = 64
"""Float tensors of one call that are looked at."""


class Call:
    """One call of a module, with the autocast that was on."""

    def __init__(self, module: nn.Module, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        self.module = module
        self.name = name
        """Dotted path of the module; empty for the model itself."""
        self.args, self.kwargs = args, kwargs
        self.is_of_training = module.training
        """Whether the module was not in evaluation mode."""
        self.gradients: dict[int, torch.Tensor] = {}
        """The gradient that came to an output, by its place among the float outputs."""
        self._outputs: dict[int, tuple[weakref.ref[torch.Tensor], torch.Tensor | None, int]] = {}
        """The outputs by their places, as long as the loop holds them; the small ones as well without
        their graph; and their versions."""
        self.nodes = (0, 0)
        """The numbers of the first node of the graph that it has made, and of the first after it."""
        self.has_raised = False
        """Whether the call has ended in an exception."""
        self.autocast: list[tuple[str, torch.dtype]] = []
        """The kinds of device and the types of the autocast that was on."""
        self.chance: dict[str, Any] | None = None
        """The random states of torch before it, where they are kept."""
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                self.autocast.append((kind, torch.get_autocast_dtype(kind)))
        self.inputs = self._inputs()
        """The float tensors that the call was given, with the names of the arguments."""
        self.made: set[str] = set()
        """Names of those that the same module has given out before in this step, without their graph."""

    def _inputs(self) -> list[tuple[str, torch.Tensor]]:
        forward = self.module.forward
        function = getattr(forward, "__func__", None)
        names = _argument_names(forward if function is None else function, function is not None)
        given = [(_name_of(names, place), value) for place, value in enumerate(self.args)]
        found = [*floats([*given, *self.kwargs.items()])]
        return [(f"{self.name}.{name}", t) for name, t in found] if self.name else found

    def watch_outputs(self, output: Any) -> None:
        """Keeps the gradients that will come to the outputs, and these while somebody else does."""
        for place, tensor in enumerate(tensors_of(output)):
            # On a parameter that a model gives out hooks would pile up.
            if tensor.grad_fn is not None:
                # A call that runs no Python code, for it comes at every backward pass.
                tensor.register_hook(functools.partial(operator.setitem, self.gradients, place))
                size = _memory_of(tensor)
                small = tensor.detach() if size and size <= _KEPT_MAX else None
                self._outputs[place] = (weakref.ref(tensor), small, tensor._version)

    def outputs(self) -> dict[int, torch.Tensor]:
        """The outputs that are still there as they were, by their places."""
        found = {}
        for place, (known, small, version) in self._outputs.items():
            tensor = small if small is not None else known()
            # The loop may have given back what it lay in.
            if tensor is not None and tensor._version == version and _memory_of(tensor) != 0:
                found[place] = tensor
        return found

    def forget_outputs(self) -> None:
        """Lets go of the outputs that the loop does not hold."""
        self._outputs = {p: (known, None, v) for p, (known, _, v) in self._outputs.items()}

    def agrees_with(self, output: Any) -> bool:
        """Whether the outputs of the call run again are finite where its own were, as far as these are
        known."""
        known, again = self.outputs(), dict(enumerate(tensors_of(output)))
        both = [(known[place], again[place]) for place in known.keys() & again.keys()]
        return all(bool(a.isfinite().all()) == bool(b.isfinite().all()) for a, b in both)

    def without_gradients(self) -> Call:
        """The same call, without the gradients that came to its outputs."""
        call = copy.copy(self)
        call.gradients = {}
        return call

    def without_arguments(self) -> Call:
        """The same call, without what it was given and has given out."""
        call = copy.copy(self)
        call.args, call.kwargs, call.inputs, call.chance = (), {}, [], None
        call.forget_outputs()
        return call

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """The autocast that was on."""
        with contextlib.ExitStack() as stack:
            for kind, dtype in self.autocast:
                stack.enter_context(torch.autocast(kind, dtype))
            yield


class CarriedState:
    """Finds the arguments that are outputs of an earlier call of the same module: the hidden state of a
    recurrent network, which the loop carries from batch to batch. They are no data."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """Arguments that were carried once."""
        # A weak reference keeps the address of a storage from being used again.
        self._left: dict[nn.Module, list[StorageWeakRef]] = {}
        self._before: dict[nn.Module, list[StorageWeakRef]] = {}
        """What was given out before this step: a decoder's state goes from call to call within one."""

    def enter(self, call: Call) -> None:
        """Notes the arguments of a call that the module has given out before."""
        before = {reference.cdata for reference in self._before.get(call.module, ())}
        latest = {reference.cdata for reference in self._left.get(call.module, ())}
        for name, tensor in call.inputs if before or latest else ():
            if tensor.grad_fn is None:
                storage = storage_id(tensor)
                if storage in before:
                    self.names.add(name)
                elif storage in latest:
                    call.made.add(name)

    def leave(self, call: Call, output: Any) -> None:
        """Keeps what a call has given out and may be given again, but for what it was given: in the first
        step everything, later only what has the shape of an argument."""
        outputs = tensors_of(output) if call.inputs else []
        if call.module in self._before:
            shapes = {tensor.shape for _, tensor in call.inputs}
            outputs = [tensor for tensor in outputs if tensor.shape in shapes]
        if outputs:
            given = {None, *(storage_id(tensor) for _, tensor in call.inputs)}
            outputs = [tensor for tensor in outputs if storage_id(tensor) not in given]
        if call.inputs:
            self._left[call.module] = [StorageWeakRef(t.untyped_storage()) for t in outputs]

    def end(self) -> None:
        """Ends a step."""
        self._before, self._left = {**self._before, **self._left}, {}

    def data_of(self, call: Call) -> list[tuple[str, torch.Tensor]]:
        """The arguments of a call that are data: nothing that is carried, or that the graph or an earlier
        call has made."""
        others = self.names | call.made
        return [
            (name, tensor)
            for name, tensor in call.inputs
            if tensor.grad_fn is None
            and not isinstance(tensor, nn.Parameter)
            and name not in others
        ]


def floats(named: list[tuple[str, Any]]) -> Iterator[tuple[str, torch.Tensor]]:
    """The float tensors in nested containers, each with its path: ``batch.x``, ``states[1]``."""
    stack, count = list(reversed(named)), 0
    while stack and count < _TENSORS_MAX:
        name, value = stack.pop()
        if isinstance(value, torch.Tensor):
            if _is_read(value):
                count += 1
                yield name, value
        elif isinstance(value, Mapping):
            stack += reversed([(f"{name}.{key}", item) for key, item in value.items()])
        elif isinstance(value, (tuple, list)):
            stack += reversed([(f"{name}[{i}]", item) for i, item in enumerate(value)])
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [field.name for field in dataclasses.fields(value)]
            held = [(f"{name}.{field}", getattr(value, field, None)) for field in fields]
            stack += reversed(held)


def tensors_of(value: Any) -> list[torch.Tensor]:
    """The float tensors of an output, without their names."""
    if isinstance(value, torch.Tensor):
        return [value] if _is_read(value) else []
    return [tensor for _, tensor in floats([("", value)])]


def first_float(value: Any) -> torch.Tensor | None:
    """The first real float tensor of nested containers."""
    return next((tensor for tensor in tensors_of(value) if not tensor.is_complex()), None)


def leads_to(nodes: Iterable[Any], is_goal: Callable[[Any], bool], nodes_max: int) -> bool:
    """Whether the graph leads from some nodes back to a goal, as far as it is looked at."""
    stack = [node for node in nodes if node is not None]
    met = set(stack)
    while stack and len(met) < nodes_max:
        node = stack.pop()
        if is_goal(node):
            return True
        before = [known for known, _ in node.next_functions if known is not None]
        stack += [known for known in before if known not in met]
        met.update(before)
    return False


def _is_read(tensor: torch.Tensor) -> bool:
    is_number = tensor.is_floating_point() or tensor.is_complex()
    return is_number and not tensor.is_nested


def storage_id(tensor: torch.Tensor) -> int | None:
    """The address of a tensor's storage; ``None`` for one that wraps others and has none."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def _memory_of(tensor: torch.Tensor) -> int | None:
    """The bytes of what a tensor lies in; 0 for one that wraps others, and ``None`` for a sparse one."""
    if tensor.layout != torch.strided:
        return None
    try:
        return tensor.untyped_storage().nbytes()
    except (NotImplementedError, RuntimeError):
        return 0


@functools.lru_cache(maxsize=1024)
def _argument_names(forward: Callable[..., Any], has_self: bool) -> tuple[tuple[str, ...], str]:
    """Names of the positional parameters of a ``forward``, and of those that follow."""
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return (), "args"
    parameters = parameters[1:] if has_self else parameters
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    return tuple(p.name for p in parameters if p.kind in positional), (rest or ["args"])[0]


def _name_of(names: tuple[tuple[str, ...], str], place: int) -> str:
    known, rest = names
    return known[place] if place < len(known) else f"{rest}[{place - len(known)}]"
