"""A table of text whose long columns are wrapped."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_WIDEST = 34
"""Columns of a cell before it is wrapped."""


def lines_of(
    head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()
) -> list[str]:
    """The lines of a table. Control characters in a cell are shown as ``?``."""
    cells = [[_wrapped(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(line) for row in cells for line in row[at]) for at in range(len(head))]
    lines = []
    for row in cells:
        for index in range(max(len(cell) for cell in row)):
            parts = []
            for at, cell in enumerate(row):
                text = cell[index] if index < len(cell) else ""
                parts.append(text.rjust(widths[at]) if at in right else text.ljust(widths[at]))
            lines.append("  ".join(parts).rstrip())
    return lines


def plain(text: str) -> str:
    """The text without characters that could steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(plain(text), _WIDEST) or [""]
