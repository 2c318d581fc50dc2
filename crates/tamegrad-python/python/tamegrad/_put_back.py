"""Puts back what a repeated pass has moved: random states, tensors that were written to, and the Python
state that the modules reach."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import random
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ._state import random_state, set_random_state
from ._versions import keeping_versions, set_version

_OBJECTS_MAX = 2_000_000
"""Objects and elements of containers that are compared; a model that reaches more is not run again."""
_ARRAY_BYTES_MAX = 1 << 26
"""Bytes of NumPy arrays that are copied."""
_ITSELF = (
    str,
    bytes,
    int,
    float,
    complex,
    bool,
    type(None),
    range,
    torch.dtype,
    torch.device,
)
"""Types whose values do not change."""
_NOTHING = object()
"""Stands for an attribute that is not there."""
_GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")
"""Where torch keeps the hooks that are called for every module."""
_HOLDERS = ("SimpleNamespace", "Namespace")
"""Classes of Python's own whose objects hold what the user puts there."""


class CannotPutBackError(Exception):
    """The modules reach something whose state cannot be kept."""


class Moved:
    """What was moved besides random states and buffers, in words."""

    def __init__(self) -> None:
        self.what: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.what)

    def words(self) -> str:
        """Up to three of them."""
        known = list(dict.fromkeys(self.what))
        more = f" and {len(known) - 3} more" if len(known) > 3 else ""
        return ", ".join(known[:3]) + more


@contextlib.contextmanager
def putting_back(modules: list[nn.Module], also: Sequence[Any] = ()) -> Iterator[Moved]:
    """Puts back, on leaving, what has moved within; tells what was more than a random state or a buffer.
    ``also`` are functions and objects of the user's that take part.

    Raises :class:`CannotPutBackError` before anything is run where that could not be done.
    """
    moved = Moved()
    reached = _Reached([*modules, *also])
    tensors = {id(t): t for m in modules for t in m.buffers()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in tensors.values()]
    gradients = {id(p): (p, p.grad) for m in modules for p in m.parameters()}
    chance = random_state()
    generators = _generators_of_python(reached)
    journal = _Journal(reached.generators)
    # Each part is put back though another should fail.
    with contextlib.ExitStack() as parts:
        parts.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        for buffer, saved in buffers:
            parts.callback(_write, buffer, saved)
        parts.callback(journal.put_back, moved, modules)
        for parameter, gradient in gradients.values():
            parts.callback(setattr, parameter, "grad", gradient)
        parts.callback(reached.put_back, moved)
        for generator, state in generators:
            parts.callback(_set_state, generator, state)
        parts.callback(set_random_state, chance)
        parts.callback(torch.set_grad_enabled, False)
        with journal:
            yield moved


def _names_of(modules: list[nn.Module]) -> dict[int, str]:
    """Names of the storages of parameters."""
    names: dict[int, str] = {}
    for module in modules:
        for name, tensor in module.named_parameters():
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                # A lazy parameter has no storage yet.
                names.setdefault(_storage(tensor), f"the parameter `{name}`")
    return names


class _Journal(TorchDispatchMode):
    """Copies every tensor from before the pass that is about to be written to, and every generator of
    torch's that is about to be drawn from."""

    def __init__(self, generators: list[torch.Generator]) -> None:
        super().__init__()
        self._made: set[int] = set()
        self._saved: dict[int, tuple[torch.Tensor, torch.UntypedStorage, int]] = {}
        self._generators = {id(g): (g, g.get_state()) for g in generators}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [*args, *kwargs.values()]
        for value in given:
            if isinstance(value, torch.Generator) and id(value) not in self._generators:
                self._generators[id(value)] = (value, value.get_state())
        if function._schema.is_mutable:
            self._save_written(function._schema, args, kwargs)
        output = function(*args, **kwargs)
        before = {_storage(tensor) for tensor in _flat(given)}
        self._made.update({_storage(tensor) for tensor in _flat([output])} - before)
        return output

    def _save_written(self, schema: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        named = [(schema.arguments[place], value) for place, value in enumerate(args)]
        named += [(a, kwargs[a.name]) for a in schema.arguments if a.name in kwargs]
        for argument, value in named:
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            for tensor in _flat([value]):
                key = _storage(tensor)
                if key not in self._made and key not in self._saved:
                    storage = tensor.untyped_storage()
                    self._saved[key] = (tensor, storage.clone(), tensor._version)

    def put_back(self, moved: Moved, modules: list[nn.Module]) -> None:
        """Writes back what was saved; buffers are moved without a word."""
        names = _names_of(modules)
        buffers = {_storage(buffer) for module in modules for buffer in module.buffers()}
        for generator, state in self._generators.values():
            generator.set_state(state)
        for key, (tensor, saved, version) in self._saved.items():
            storage = tensor.untyped_storage()
            if storage.nbytes() != saved.nbytes():
                # Memory that FSDP gives back between two uses.
                continue
            storage.copy_(saved)
            set_version(tensor, version)
            if key not in buffers:
                shape = "x".join(map(str, tensor.shape)) or "one element"
                moved.what.append(names.get(key, f"a tensor of {shape} in place"))


class _Reached:
    """The Python objects that the modules reach and that can change, each with a copy of what it holds.

    They are found from the modules' attributes, their hooks, and the functions of their classes: what
    those close over, and the global variables that they name.
    """

    def __init__(self, things: Iterable[Any]) -> None:
        self.generators: list[torch.Generator] = []
        self.python_generators: list[Any] = []
        self._dicts: list[tuple[str, dict, dict]] = []
        self._lists: list[tuple[str, Any, list]] = []
        self._sets: list[tuple[str, set, set]] = []
        self._cells: list[tuple[str, Any, Any]] = []
        self._globals: list[tuple[str, dict, str, Any]] = []
        self._attributes: list[tuple[str, Any, str, Any]] = []
        self._arrays: list[tuple[str, Any, Any]] = []
        self._tensors: list[tuple[str, torch.Tensor, torch.Tensor, bool]] = []
        self._array_bytes = 0
        self._elements = 0
        # An object that is met only here lives no longer than it is held: its id would be used again.
        self._met: dict[int, Any] = {}
        self._todo: list[tuple[str, Any]] = [(type(thing).__name__, thing) for thing in things]
        for hooks in _GLOBAL_HOOKS:
            self._todo.append(
                ("a hook on all modules", getattr(torch.nn.modules.module, hooks, {}))
            )
        while self._todo:
            if len(self._met) + self._elements > _OBJECTS_MAX:
                raise CannotPutBackError(f"it reaches more than {_OBJECTS_MAX:,} objects")
            self._visit(*self._todo.pop())

    def _visit(self, name: str, value: Any) -> None:
        if isinstance(value, _ITSELF) or id(value) in self._met:
            return
        self._met[id(value)] = value
        if isinstance(value, torch.Tensor):
            self._visit_tensor(name, value)
            return
        if isinstance(value, (dict, list, tuple, set, frozenset, collections.deque)):
            self._elements += len(value)
            if self._elements > _OBJECTS_MAX:
                return
        if isinstance(value, torch.Generator):
            self.generators.append(value)
        elif isinstance(value, nn.Module):
            self._visit_module(name, value)
        elif isinstance(value, dict):
            self._dicts.append((name, value, dict(value)))
            self._todo += [(f"{name}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, (list, collections.deque)):
            self._lists.append((name, value, list(value)))
            self._todo += [(f"{name}[{i}]", item) for i, item in enumerate(value)]
        elif isinstance(value, (tuple, frozenset)):
            self._todo += [(name, item) for item in value]
        elif isinstance(value, bytearray):
            self._lists.append((name, value, list(value)))
        elif isinstance(value, set):
            self._sets.append((name, value, set(value)))
            self._todo += [(name, item) for item in value]
        elif isinstance(value, types.FunctionType):
            self._visit_function(value)
        elif isinstance(value, types.MethodType):
            self._todo += [(name, value.__self__)]
            self._visit_function(value.__func__)
        elif isinstance(value, functools.partial):
            self._todo += [(name, part) for part in (value.func, value.args, value.keywords)]
        elif _is_of(value, "numpy", "ndarray"):
            self._visit_array(name, value)
        elif _is_chance(value):
            self.python_generators.append(value)
        elif isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
            raise CannotPutBackError(f"`{name}` is an iterator, which cannot be rewound")
        elif isinstance(value, type):
            self._visit_class(value)
        elif isinstance(value, types.ModuleType):
            return
        elif _is_of_library(type(value)) and type(value).__name__ not in _HOLDERS:
            return
        else:
            self._visit_object(name, value)

    def _visit_module(self, name: str, module: nn.Module) -> None:
        path = type(module).__name__
        self._todo += [(kind.__name__, kind) for kind in type(module).__mro__]
        self._dicts.append((path, module.__dict__, dict(module.__dict__)))
        self._todo += [(f"{path}.{key}", item) for key, item in module.__dict__.items()]

    def _visit_class(self, kind: type) -> None:
        """Visits a class of the user's: its attributes, and what its functions close over and name."""
        if _is_of_library(kind):
            return
        plain = [key for key, value in vars(kind).items() if _is_plain_attribute(key, value)]
        self._visit_attributes(kind.__name__, kind, plain)
        for value in vars(kind).values():
            functions = (value.fget, value.fset) if isinstance(value, property) else (value,)
            for function in functions:
                self._visit_function(getattr(function, "__func__", function))

    def _visit_tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Keeps the memory that a tensor stands for, which ``.data = ...`` exchanges, and its flag."""
        if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
            return
        self._tensors.append((name, tensor, tensor.detach(), tensor.requires_grad))
        self._dicts.append((name, vars(tensor), dict(vars(tensor))))
        self._todo += [(f"{name}.{key}", item) for key, item in vars(tensor).items()]

    def _visit_object(self, name: str, value: Any) -> None:
        held = getattr(value, "__dict__", None)
        if isinstance(held, dict):
            self._dicts.append((name, held, dict(held)))
            self._todo += [(f"{name}.{key}", item) for key, item in held.items()]
        for kind in type(value).__mro__:
            self._todo.append((kind.__name__, kind))
            slots = vars(kind).get("__slots__", ())
            self._visit_attributes(name, value, [slots] if isinstance(slots, str) else slots)

    def _visit_attributes(self, name: str, holder: Any, keys: Iterable[str]) -> None:
        """Visits attributes that lie in no dictionary which could be written to: those of classes, and
        slots."""
        for key in keys:
            value = getattr(holder, key, _NOTHING)
            if value is not _NOTHING:
                self._attributes.append((f"{name}.{key}", holder, key, value))
                self._todo.append((f"{name}.{key}", value))

    def _visit_array(self, name: str, array: Any) -> None:
        self._array_bytes += array.nbytes
        if self._array_bytes > _ARRAY_BYTES_MAX:
            raise CannotPutBackError(f"`{name}` and other arrays are too large to be copied")
        self._arrays.append((name, array, array.copy()))
        if array.dtype.hasobject:
            self._todo += [(name, item) for item in array.ravel().tolist()]

    def _visit_function(self, function: Any) -> None:
        """Visits what a function closes over, and the global variables that it names, of other files of
        the user's as well."""
        function = getattr(function, "__wrapped__", function)
        if not isinstance(function, types.FunctionType) or _is_of_library(function):
            return
        code = function.__code__
        if id(code) in self._met:
            return
        self._met[id(code)] = code
        for place, cell in enumerate(function.__closure__ or ()):
            with contextlib.suppress(ValueError):
                name = code.co_freevars[place]
                self._cells.append((f"`{name}`", cell, cell.cell_contents))
                self._todo.append((name, cell.cell_contents))
        self._todo.append((function.__name__, function.__defaults__))
        names = set(_names_in(code))
        spaces = [function.__globals__]
        for name in names.intersection(function.__globals__):
            value = function.__globals__[name]
            if isinstance(value, types.ModuleType) and not _is_library(
                value.__name__.split(".")[0]
            ):
                spaces.append(vars(value))
        for space in spaces:
            for name in names.intersection(space):
                value = space[name]
                if not isinstance(value, (types.ModuleType, types.FunctionType, type)):
                    self._globals.append((f"`{name}`", space, name, value))
                self._todo.append((name, value))

    def put_back(self, moved: Moved) -> None:
        """Makes everything hold what it held, and tells what did not."""
        # By the methods of the built-in classes: those of others may do more, or refuse.
        for name, held, before in self._dicts:
            # An ordered dictionary keeps its order apart.
            ordered = collections.OrderedDict
            kind = ordered if isinstance(held, ordered) else dict
            if not _same(list(kind.items(held)), list(before.items())):
                keys = [key for key in {**before, **held} if _differs(held, before, key)]
                moved.what += [f"`{name}.{key}`" for key in keys[:3]] or [f"`{name}`"]
                kind.clear(held)
                kind.update(held, before)
        for name, held, before in self._lists:
            if not _same(list(held), before):
                moved.what.append(f"`{name}`")
                kind = next(k for k in (list, bytearray, collections.deque) if isinstance(held, k))
                kind.clear(held)
                kind.extend(held, before)
        for name, held, before in self._sets:
            if set(held) != before:
                moved.what.append(f"`{name}`")
                set.clear(held)
                set.update(held, before)
        for name, cell, before in self._cells:
            if not _is_same(cell.cell_contents, before):
                moved.what.append(name)
                cell.cell_contents = before
        for name, variables, key, before in self._globals:
            if not _is_same(variables.get(key), before):
                moved.what.append(name)
                variables[key] = before
        for name, holder, key, before in self._attributes:
            if not _is_same(getattr(holder, key, _NOTHING), before):
                moved.what.append(f"`{name}`")
                setattr(holder, key, before)
        for name, array, before in self._arrays:
            if array.shape != before.shape or array.tobytes() != before.tobytes():
                moved.what.append(f"`{name}`")
                if array.shape != before.shape:
                    array.resize(before.shape, refcheck=False)
                array[...] = before
        for name, tensor, before, requires_grad in self._tensors:
            if not _is_of_same_memory(tensor, before):
                moved.what.append(f"`{name}`")
                tensor.data = before
            if tensor.requires_grad != requires_grad:
                moved.what.append(f"`{name}.requires_grad`")
                tensor.requires_grad_(requires_grad)


def _is_of_same_memory(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        return _storage(tensor) == _storage(other)
    return True


def _is_plain_attribute(key: str, value: Any) -> bool:
    """Whether a class's attribute is a value of the user's: no method, property or name of Python's."""
    is_special = key.startswith("__") or hasattr(value, "__get__")
    return not is_special and not isinstance(value, type)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)


def _differs(held: dict, before: dict, key: Any) -> bool:
    return key not in held or key not in before or not _is_same(held[key], before[key])


def _same(now: list, before: list) -> bool:
    if len(now) != len(before):
        return False
    return all(_is_same(a, b) for a, b in zip(now, before, strict=True))


def _is_same(now: Any, before: Any) -> bool:
    """Whether it is the same object, or a number or text of the same value."""
    if now is before:
        return True
    if type(now) is not type(before):
        return False
    if isinstance(now, tuple):
        return _same(list(now), list(before))
    # By the text: NaN is what it was, and -0.0 is not 0.0.
    return isinstance(now, _ITSELF) and repr(now) == repr(before)


def _is_of(value: Any, package: str, name: str) -> bool:
    kind = type(value)
    return kind.__name__ == name and (kind.__module__ or "").split(".")[0] == package


@functools.cache
def _is_kind_of_chance(kind: type) -> bool:
    """Whether it is a class of random generators, of Python's or NumPy's."""
    numpy = sys.modules.get("numpy")
    known = {random.Random}
    if numpy is not None:
        known |= {numpy.random.Generator, numpy.random.RandomState}
    return not known.isdisjoint(kind.__mro__)


def _is_chance(value: Any) -> bool:
    # Not by `isinstance`: among all objects there are some that answer it with a warning.
    return _is_kind_of_chance(type(value))


def _is_of_library(thing: Any) -> bool:
    """Whether a class or function comes with Python or was installed: those move nothing of the
    user's, but for the attributes of their modules."""
    return _is_library((getattr(thing, "__module__", None) or "").split(".")[0])


@functools.cache
def _is_library(package: str) -> bool:
    if package in sys.stdlib_module_names and package != "__main__":
        return True
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    return package in ("torch", "tamegrad") or bool(
        {"site-packages", "dist-packages"}.intersection(file.replace("\\", "/").split("/"))
    )


def _generators_of_python(reached: _Reached) -> list[tuple[Any, Any]]:
    """All random generators of Python's and NumPy's in this process, with their states."""
    found = {id(value): value for value in reached.python_generators}
    for value in gc.get_objects():
        if _is_chance(value):
            found.setdefault(id(value), value)
    states = []
    for value in found.values():
        with contextlib.suppress(Exception):
            states.append((value, _state_of(value)))
    return states


def _state_of(generator: Any) -> Any:
    if hasattr(generator, "bit_generator"):
        return generator.bit_generator.state
    return generator.get_state() if hasattr(generator, "get_state") else generator.getstate()


def _set_state(generator: Any, state: Any) -> None:
    if hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.setstate(state)


def _flat(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _flat(value)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _write(tensor: torch.Tensor, value: torch.Tensor) -> None:
    with keeping_versions([tensor]):
        if tensor.shape != value.shape:
            tensor.resize_(value.shape)
        tensor.copy_(value)
