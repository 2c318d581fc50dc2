"""The journal of a search: a line for every trial that has ended, so that a search goes on after a kill."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .outcome import Outcome

FILE = "trials.jsonl"
_FORMAT = "tamegrad-fix/1"


class Journal:
    """Appends outcomes to ``trials.jsonl`` in a folder and gives those of an earlier search.

    Raises ``ValueError`` if the folder holds the search of another objective, or other files of that
    name.
    """

    def __init__(self, folder: str | os.PathLike[str], objective: Callable[..., Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / FILE
        self.earlier: dict[str, Outcome] = {}
        """Outcomes of the search that was interrupted, by their key."""
        head = {"format": _FORMAT, "objective": name_of(objective), "source": _digest(objective)}
        lines = self._path.read_text("utf-8").splitlines() if self._path.exists() else []
        if lines:
            self._read(lines, head)
        kept = [head, *(outcome.to_dict() for outcome in self.earlier.values())]
        new = self._path.with_suffix(".new")
        new.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        os.replace(new, self._path)
        self._file = self._path.open("a", encoding="utf-8")

    def _read(self, lines: list[str], head: dict[str, str]) -> None:
        found = _parsed(lines[0])
        if found.get("format") != _FORMAT:
            raise ValueError(f"{self._path}: got something else, want the journal of a search")
        if found != head:
            raise ValueError(
                f"{self._path}: got the search of {found.get('objective')!r} with another source file, "
                f"want that of {head['objective']!r} as it is now; choose another folder, or delete this "
                "file"
            )
        for line in lines[1:]:
            # A line that was cut by a kill is left out: that trial is run again.
            with contextlib.suppress(KeyError, TypeError, ValueError):
                outcome = Outcome.of_dict(_parsed(line))
                self.earlier[outcome.key] = outcome

    def add(self, outcome: Outcome) -> None:
        """Writes an outcome, so that it outlasts the process."""
        self._file.write(json.dumps(outcome.to_dict(), allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def name_of(objective: Callable[..., Any]) -> str:
    """Module and name of a function, or the class of another object."""
    name = getattr(objective, "__qualname__", type(objective).__qualname__)
    return f"{getattr(objective, '__module__', '?')}:{name}"


def _digest(objective: Callable[..., Any]) -> str:
    """A digest of the source file of the objective; empty where there is none."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(objective))
        return hashlib.sha256(Path(path or "").read_bytes()).hexdigest()
    except (OSError, TypeError):
        return ""


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
