"""Numbers as a person would write them."""

from __future__ import annotations

import math


def two_digits(value: float) -> float:
    """The value with two significant digits."""
    return float(f"{value:.1e}") if math.isfinite(value) else value


def number(value: float) -> str:
    """The value in as few characters as four significant digits need."""
    return f"{value:.4g}"
