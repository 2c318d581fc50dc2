"""JSON as docs/json.md has it: numbers, and files that are on the disk when they are written."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from ._safetensors import damaged


def json_number(value: Any) -> Any:
    """A float as JSON can hold it, which knows neither NaN nor infinity; anything else as it is."""
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def write_json(path: Path, value: Any) -> None:
    """Writes a new file, which is on the disk when this returns."""
    with open(path, "x", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_json(path: Path) -> dict[str, Any]:
    """Reads what was written.

    Raises ``ValueError`` if it is no JSON or no dictionary.
    """
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"no JSON ({error})", "what was written") from None
    if not isinstance(value, dict):
        raise damaged(path, f"a {type(value).__name__}", "a dictionary")
    return value
