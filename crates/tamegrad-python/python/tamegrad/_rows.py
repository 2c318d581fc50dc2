"""The rows of a batch that break a step, found by halves (delta debugging, Zeller and Hildebrandt 2002)."""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import torch

from ._nest import mapped

_SETS_MAX = 8
"""Sets of rows that break the step by themselves and are looked for."""
_PROBES = 3
"""Single rows that are tried to see whether any row breaks it."""

Breaks = Callable[[list[int]], bool | None]
"""Whether a step on these rows breaks; ``None`` if there is no time left to try."""


def batch_size(batch: Any) -> int | None:
    """The first dimension that most tensors of a batch have; ``None`` if there is none above one."""
    sizes = [len(value) for value in _arrays(batch) if len(value.shape)]
    counts = collections.Counter(sizes)
    size = max(counts, key=counts.__getitem__, default=0)
    return size if size > 1 else None


def taken(batch: Any, size: int, rows: list[int]) -> Any:
    """The batch with these rows alone: of tensors and arrays whose first dimension is ``size``, and of
    lists of so many values that are none of these."""

    def of_tensor(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.dim() or len(tensor) != size:
            return tensor
        index = torch.tensor(rows, device=tensor.device)
        return tensor.detach()[index].requires_grad_(tensor.requires_grad)

    return mapped(_lists_taken(batch, size, rows), of_tensor)


def smallest_sets(size: int, breaks: Breaks) -> tuple[list[list[int]], bool]:
    """Sets of rows, none with a row to spare, each of which breaks the step by itself, and whether the
    search came to its end. No set at all: any row breaks it, so that it is not for the data of one.
    """
    found: list[list[int]] = []
    rest = list(range(size))
    while rest and len(found) < _SETS_MAX:
        rows, is_over = _smallest(rest, breaks)
        if is_over and len(rows) == size:
            return [], False
        found.append(rows)
        if is_over:
            return found, False
        if len(found) == 1 and len(rows) == 1 and _is_any(rows[0], size, breaks):
            return [], True
        rest = [row for row in rest if row not in rows]
        still = breaks(rest) if rest else False
        if not still:
            return found, still is not None
    return found, True


def _is_any(row: int, size: int, breaks: Breaks) -> bool:
    """Whether other single rows, from all over the batch, break the step as well."""
    others = [place for place in range(size) if place != row]
    probes = others[:: max(len(others) // _PROBES, 1)][:_PROBES]
    return all(breaks([probe]) for probe in probes)


def _smallest(rows: list[int], breaks: Breaks) -> tuple[list[int], bool]:
    """The smallest set in these rows that still breaks, and whether the time was over before."""
    parts = 2
    while len(rows) > 1:
        chunks = split(rows, parts)
        rests = [[row for row in rows if row not in chunk] for chunk in chunks]
        # Of two halves each is the rest of the other.
        tries = [*chunks, *(rests if parts > 2 else [])]
        results = ((chunk, breaks(chunk)) for chunk in tries)
        chunk, result = next((pair for pair in results if pair[1] is not False), ([], False))
        if result is None:
            return rows, True
        if result:
            parts = 2 if chunk in chunks else max(parts - 1, 2)
            rows = chunk
        elif parts >= len(rows):
            return rows, False
        else:
            parts = min(2 * parts, len(rows))
    return rows, False


def split(rows: list[int], parts: int) -> list[list[int]]:
    """Rows in so many parts of nearly the same size."""
    bounds = [len(rows) * part // parts for part in range(parts + 1)]
    pairs = zip(bounds, bounds[1:], strict=False)
    return [rows[begin:end] for begin, end in pairs if end > begin]


def _lists_taken(value: Any, size: int, rows: list[int]) -> Any:
    if isinstance(value, list) and len(value) == size and not _has_rows(value, size):
        return [value[row] for row in rows]
    if _is_array(value) and value.ndim and len(value) == size:
        return value[rows]
    if isinstance(value, dict):
        return type(value)({key: _lists_taken(item, size, rows) for key, item in value.items()})
    if type(value) in (list, tuple):
        return type(value)(_lists_taken(item, size, rows) for item in value)
    return value


def _has_rows(values: list, size: int) -> bool:
    """Whether a list holds tensors of all rows, as the ``[x, y]`` of a batch of two does."""
    return any(len(value.shape) and len(value) == size for value in _arrays(values))


def _arrays(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor) or _is_array(value):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _arrays(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, SimpleNamespace):
        yield from _arrays(vars(value))


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)
