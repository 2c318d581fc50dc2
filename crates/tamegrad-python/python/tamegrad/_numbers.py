"""The seven numbers of a tensor: elements, NaN, Inf, zeros, L2 norm, largest magnitude, mean."""

from __future__ import annotations

import math
from collections.abc import Iterable

Numbers = tuple[int, int, int, int, float, float, float]


def with_zeros(numbers: Numbers, missing: int) -> Numbers:
    """The numbers of a tensor with so many zero elements more."""
    if not missing:
        return numbers
    length, nans, infs, zeros, l2, largest, mean = numbers
    finite = length - nans - infs
    mean = mean * finite / max(finite + missing, 1)
    return length + missing, nans, infs, zeros + missing, l2, largest, mean


def merged(parts: Iterable[Numbers]) -> Numbers | None:
    """The numbers of one tensor by those of its parts; ``None`` without any."""
    parts = list(parts)
    if len(parts) <= 1:
        return parts[0] if parts else None
    length, nans, infs, zeros = (int(sum(part[i] for part in parts)) for i in range(4))
    finite = [part[0] - part[1] - part[2] for part in parts]
    mean = sum(count * part[6] for count, part in zip(finite, parts, strict=True))
    mean /= max(sum(finite), 1.0)
    norm = math.hypot(*(part[4] for part in parts))
    return length, nans, infs, zeros, norm, max(part[5] for part in parts), mean
