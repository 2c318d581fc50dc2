"""Nested values (a batch, an optimizer's state) as JSON and tensors, and back; never a pickle."""

from __future__ import annotations

import base64
import collections
import dataclasses
import math
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ._names import class_name
from ._safetensors import size_of, why_not

_DEPTH_MAX = 32
"""Containers within containers."""
_NODES_MAX = 200_000
"""Values of one nest."""
_LOST_MAX = 100
"""Values that could not be kept and are named."""
_TEXT_MAX = 1 << 20
"""Characters or bytes of one value."""
_BITS_MAX = 1024
"""Of a whole number."""


class Lost:
    """Stands in a nest for a value that was not kept."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"<not saved: {self.why}>"


class Fields(tuple):
    """A named tuple that was kept: a tuple whose items also have names."""

    names: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> Any:
        if name in self.names:
            return self[self.names.index(name)]
        raise AttributeError(name)

    def __reduce__(self) -> tuple:
        return _fields, (self.names, tuple(self))


class Entries(dict):
    """A mapping of a library's class that was kept (``BatchEncoding``): a dictionary whose keys are
    attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(name)


class Nest:
    """A nested value taken apart: ``node`` is for JSON, ``tensors`` are by the names it uses."""

    def __init__(self, value: Any, *, bytes_max: int, root: str = "batch") -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.lost: list[tuple[str, str]] = []
        """Path and kind of what could not be kept."""
        self.bytes = 0
        self._bytes_max = bytes_max
        self._count = 0
        self._names: dict[int, str] = {}
        self._held: list[Any] = []
        self.node = self._take(root, value, 0)

    def _take(self, path: str, value: Any, depth: int) -> dict[str, Any]:
        self._count += 1
        if depth > _DEPTH_MAX or self._count > _NODES_MAX:
            return self._lose(path, "nested too deeply, or too many values")
        try:
            return self._node(path, value, depth)
        except Exception as error:
            # A library's container may do anything when it is read.
            return self._lose(path, f"{class_name(value)}: {type(error).__name__}")

    def _node(self, path: str, value: Any, depth: int) -> dict[str, Any]:
        if isinstance(value, torch.Tensor):
            return self._tensor(path, value)
        if _is_plain(value):
            node = _plain(value)
            return self._lose(path, node["lost"]) if "lost" in node else node
        if isinstance(value, Mapping):
            pairs = [
                [self._take(path, key, depth + 1), self._take(f"{path}[{key!r}]", item, depth + 1)]
                for key, item in value.items()
            ]
            return {"dict" if type(value) in _DICTS else "entries": pairs}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            held = [self._take(f"{path}.{n}", getattr(value, n), depth + 1) for n in value._fields]
            return {"fields": held, "names": list(value._fields)}
        if isinstance(value, (list, tuple, collections.deque)):
            items = [self._take(f"{path}[{i}]", item, depth + 1) for i, item in enumerate(value)]
            return {"tuple" if isinstance(value, tuple) else "list": items}
        if isinstance(value, (set, frozenset)):
            return {"set": [self._take(path, item, depth + 1) for item in value]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self._object(path, value, [f.name for f in dataclasses.fields(value)], depth)
        if isinstance(value, types.SimpleNamespace):
            return self._object(path, value, list(vars(value)), depth)
        if _is_of_numpy(value):
            array = torch.from_numpy(sys.modules["numpy"].array(value, order="C"))
            return {"array": self._tensor(path, array)}
        return self._lose(path, class_name(value))

    def _object(self, path: str, value: Any, names: list[str], depth: int) -> dict[str, Any]:
        held = {n: self._take(f"{path}.{n}", getattr(value, n, None), depth + 1) for n in names}
        return {"object": held}

    def _tensor(self, path: str, tensor: torch.Tensor) -> dict[str, Any]:
        why = why_not(tensor)
        if why is not None:
            return self._lose(path, why)
        name = self._names.get(id(tensor))
        if name is None:
            size = size_of(tensor)
            if self.bytes + size > self._bytes_max:
                over = f"{_mib(size)}, above the limit of {_mib(self._bytes_max)} in all"
                return self._lose(path, f"a tensor of {over}")
            self.bytes += size
            name = self._names[id(tensor)] = f"t{len(self.tensors)}"
            self.tensors[name] = tensor.detach()
            self._held.append(tensor)
        node: dict[str, Any] = {"tensor": name}
        if tensor.requires_grad and tensor.is_leaf:
            node["requires_grad"] = True
        return node

    def _lose(self, path: str, kind: str) -> dict[str, Any]:
        if len(self.lost) < _LOST_MAX:
            self.lost.append((path, kind))
        return {"lost": kind}


def rebuilt(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The value of a node; a container of an unknown class is rebuilt as a plain one.

    Raises ``ValueError`` for what is no node.
    """
    try:
        return _rebuilt(node, tensors)
    except (KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"got a nest with {type(error).__name__}: {error}") from None


def _rebuilt(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    kinds = _KINDS.keys() & node.keys()
    if len(kinds) != 1:
        raise ValueError(f"got a node with the keys {', '.join(map(str, node))}, want a known one")
    (kind,) = kinds
    return _KINDS[kind](node, tensors)


def _rebuilt_tensor(node: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    tensor = tensors[node["tensor"]]
    if node.get("requires_grad") is True and (tensor.is_floating_point() or tensor.is_complex()):
        tensor.requires_grad_(True)
    return tensor


def _rebuilt_dict(pairs: Any, tensors: Mapping[str, torch.Tensor]) -> dict[Any, Any]:
    return {_rebuilt(key, tensors): _rebuilt(item, tensors) for key, item in pairs}


def _rebuilt_fields(node: Any, tensors: Mapping[str, torch.Tensor]) -> Fields:
    return _fields(tuple(map(str, node["names"])), _items(node["fields"], tensors))


def _rebuilt_object(held: Any, tensors: Mapping[str, torch.Tensor]) -> types.SimpleNamespace:
    return types.SimpleNamespace(**{n: _rebuilt(item, tensors) for n, item in held.items()})


def _rebuilt_array(node: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if "tensor" not in node:
        return _rebuilt(node, tensors)
    tensor = _rebuilt_tensor(node, tensors)
    try:
        return tensor.numpy()
    except RuntimeError:
        # Without numpy a tensor is the nearest.
        return tensor


def _rebuilt_plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} in the place of a number or text")


_KINDS: dict[str, Callable[[Any, Mapping[str, torch.Tensor]], Any]] = {
    "tensor": _rebuilt_tensor,
    "array": lambda node, tensors: _rebuilt_array(node["array"], tensors),
    "value": lambda node, _: _rebuilt_plain(node["value"]),
    "float": lambda node, _: float(node["float"]),
    "complex": lambda node, _: complex(*map(float, node["complex"])),
    "bytes": lambda node, _: base64.b64decode(node["bytes"], validate=True),
    "dtype": lambda node, _: _DTYPES[node["dtype"]],
    "device": lambda node, _: torch.device(str(node["device"])),
    "list": lambda node, tensors: list(_items(node["list"], tensors)),
    "tuple": lambda node, tensors: _items(node["tuple"], tensors),
    "set": lambda node, tensors: set(_items(node["set"], tensors)),
    "dict": lambda node, tensors: _rebuilt_dict(node["dict"], tensors),
    "entries": lambda node, tensors: Entries(_rebuilt_dict(node["entries"], tensors)),
    "fields": _rebuilt_fields,
    "object": lambda node, tensors: _rebuilt_object(node["object"], tensors),
    "lost": lambda node, _: Lost(str(node["lost"])),
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_DICTS = (dict, collections.OrderedDict, collections.defaultdict)


def mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """The same nest with every tensor changed; other values are kept, containers are new ones."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Fields):
        return _fields(value.names, tuple(mapped(item, change) for item in value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, dict):
        held = {key: mapped(item, change) for key, item in value.items()}
        return Entries(held) if isinstance(value, Entries) else held
    if isinstance(value, Mapping):
        return Entries({key: mapped(item, change) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return type(value)([mapped(item, change) for item in value])
    if isinstance(value, types.SimpleNamespace):
        return types.SimpleNamespace(**mapped(vars(value), change))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        held = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        return types.SimpleNamespace(**mapped(held, change))
    if _is_of_numpy(value):
        return value.copy()
    return value


def _items(nodes: Any, tensors: Mapping[str, torch.Tensor]) -> tuple:
    return tuple(_rebuilt(node, tensors) for node in nodes)


def _fields(names: tuple[str, ...], items: tuple) -> Fields:
    fields = Fields(items)
    fields.names = names
    return fields


def _is_plain(value: Any) -> bool:
    kinds = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
    return isinstance(value, kinds) and not _is_of_numpy(value)


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, (str, bytes)) and len(value) > _TEXT_MAX:
        return {"lost": f"{len(value)} characters of text"}
    if isinstance(value, int) and value.bit_length() > _BITS_MAX:
        return {"lost": f"a number of {value.bit_length()} bits"}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if isinstance(value, complex):
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(float(value))}
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            # An enumeration's member is its value.
            return {"value": kind(value)}
    return {"value": None}


def _is_of_numpy(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
