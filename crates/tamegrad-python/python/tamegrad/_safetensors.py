"""Files of tensors in the safetensors format, written and read with torch alone."""

from __future__ import annotations

import ctypes
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_KINDS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
_DTYPES = {kind: getattr(torch, name) for kind, name in _KINDS.items() if hasattr(torch, name)}
_NAMES = {dtype: kind for kind, dtype in _DTYPES.items()}
_COMPLEX = {str(d): d for d in (torch.complex32, torch.complex64, torch.complex128)}
_HEADER_BYTES_MAX = 100_000_000
"""Of the format itself."""
_ALIGNMENT = 8


def why_not(tensor: torch.Tensor) -> str | None:
    """Why a tensor cannot be kept, in words; ``None`` if it can."""
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"a {type(tensor).__name__}, which wraps other tensors"
    if tensor.device.type == "meta":
        return "a tensor without memory"
    if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
        return "a sparse, nested or quantised tensor"
    if tensor.dtype not in _NAMES and not tensor.is_complex():
        return f"a tensor of {tensor.dtype}"
    return None


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of its elements in a file."""
    return tensor.numel() * tensor.element_size()


def bytes_of(tensor: torch.Tensor) -> bytes:
    """Its elements, in their order."""
    flat = _flat(tensor)
    return bytes(_view(flat)) if flat.numel() else b""


def write(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Writes tensors without a reason not to, one at a time, and waits for the disk.

    Complex tensors are written as real ones with a last dimension of two, and named in the metadata.
    """
    # By the size of their elements: each then begins at a multiple of it.
    ordered = sorted(tensors.items(), key=lambda pair: -pair[1].element_size())
    kinds = {name: str(tensor.dtype) for name, tensor in ordered if tensor.is_complex()}
    header: dict[str, Any] = {"__metadata__": {"complex": json.dumps(kinds)}} if kinds else {}
    place = 0
    for name, tensor in ordered:
        shape = [*tensor.shape, 2] if tensor.is_complex() else [*tensor.shape]
        dtype = tensor.real.dtype if tensor.is_complex() else tensor.dtype
        end = place + size_of(tensor)
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with open(path, "xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in ordered:
            flat = _flat(tensor)
            if flat.numel():
                file.write(_view(flat))
        file.flush()
        os.fsync(file.fileno())


def read(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU.

    Raises ``ValueError`` if it is damaged or no such file, and ``OSError`` if it cannot be read.
    """
    data = bytearray(Path(path).read_bytes())
    header, start = _header(path, data)
    kinds = _complex_kinds(path, header.pop("__metadata__", {}))
    tensors, ends = {}, []
    for name, row in header.items():
        dtype, shape, begin, end = _row(path, name, row, len(data) - start)
        ends.append((begin, end))
        tensors[name] = _tensor(data, dtype, shape, start + begin)
    _check_holes(path, sorted(ends), len(data) - start)
    for name, dtype in kinds.items():
        if name in tensors:
            tensors[name] = _as_complex(path, name, tensors[name], dtype)
    return tensors


def damaged(path: str | os.PathLike[str], got: str, want: str) -> ValueError:
    """What is raised for a file that is not what was written."""
    return ValueError(
        f"{os.fspath(path)}: got {got}, want {want}; the file is damaged or not from tamegrad: copy "
        "the folder again from where it was written"
    )


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Its elements on the CPU, one after another; the caller holds them while they are looked at."""
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.to("cpu").contiguous().reshape(-1)


def _view(flat: torch.Tensor) -> Any:
    return (ctypes.c_char * size_of(flat)).from_address(flat.data_ptr())


def _header(path: Any, data: bytearray) -> tuple[dict[str, Any], int]:
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_HEADER_BYTES_MAX, len(data) - 8):
        raise damaged(path, f"{len(data)} bytes", "a header that fits in them")
    try:
        header = json.loads(data[8 : 8 + size])
    except (ValueError, RecursionError):
        raise damaged(path, "a header that is no JSON", "the header of safetensors") from None
    if not isinstance(header, dict):
        raise damaged(path, f"a header that is a {type(header).__name__}", "a dictionary")
    return header, 8 + size


def _complex_kinds(path: Any, metadata: Any) -> dict[str, torch.dtype]:
    try:
        kinds = json.loads(metadata.get("complex", "{}"))
        return {name: _COMPLEX[dtype] for name, dtype in kinds.items()}
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise damaged(path, "other metadata", "the types of complex tensors") from None


def _row(path: Any, name: str, row: Any, size: int) -> tuple[torch.dtype, list[int], int, int]:
    try:
        dtype, shape, (begin, end) = _DTYPES[row["dtype"]], row["shape"], row["data_offsets"]
        counts = [*shape, begin, end]
        are_counts = all(type(count) is int and count >= 0 for count in counts)
        fits = are_counts and begin <= end <= size
        fits = fits and math.prod(shape) * dtype.itemsize == end - begin
    except (KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise damaged(path, f"`{name}` as {str(row)[:80]}", "a type, a shape and its bytes")
    return dtype, shape, begin, end


def _tensor(data: bytearray, dtype: torch.dtype, shape: list[int], begin: int) -> torch.Tensor:
    count = math.prod(shape)
    if not count:
        return torch.empty(shape, dtype=dtype)
    raw = torch.frombuffer(data, dtype=torch.uint8, count=count * dtype.itemsize, offset=begin)
    # Any other byte in a bool is undefined.
    return (raw != 0 if dtype is torch.bool else raw.clone().view(dtype)).reshape(shape)


def _check_holes(path: Any, ends: list[tuple[int, int]], size: int) -> None:
    place = 0
    for begin, end in ends:
        if begin != place:
            raise damaged(path, f"a tensor at byte {begin}", f"it at {place}, after the one before")
        place = end
    if place != size:
        raise damaged(path, f"{size} bytes of tensors", f"{place}, as the header says")


def _as_complex(path: Any, name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    is_pair = tensor.is_floating_point() and tensor.dim() and tensor.shape[-1] == 2
    if not is_pair or 2 * tensor.element_size() != dtype.itemsize:
        raise damaged(path, f"`{name}` of {tensor.dtype}", f"the two parts of {dtype}")
    return torch.view_as_complex(tensor)
