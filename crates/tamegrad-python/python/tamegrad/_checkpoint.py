"""What a guard's state has to look like before anything of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

VERSION = 2
"""Of the dictionary; the bytes in it have a version of their own."""

_NEXT = "load what guard.state_dict() returned, or continue with the guard as it is"


def checked(state: Any) -> dict[str, Any]:
    """The entries of a state.

    Raises ``ValueError`` where one is missing or is something else.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"state: got {type(state).__name__}, want a dictionary; {_NEXT}")
    version = state.get("version")
    if version != VERSION:
        raise ValueError(f"state: got version {version!r}, want version {VERSION}; {_NEXT}")
    for key, (want, fits) in _ENTRIES.items():
        if key not in state:
            raise ValueError(f"state: got no {key!r}, want {want}; {_NEXT}")
        if not fits(state[key]):
            raise ValueError(f"state[{key!r}]: got {_shown(state[key])}, want {want}; {_NEXT}")
    if len(state["modules"]) != len(state["calls"]):
        got = f"{len(state['modules'])} modules and {len(state['calls'])} calls"
        raise ValueError(f"state: got {got}, want the same number of both; {_NEXT}")
    return dict(state)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _are_counts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _may_be_float(value: Any) -> bool:
    return value is None or isinstance(value, float)


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list)
        and len(row) == 3
        and isinstance(row[0], str)
        and _is_count(row[1])
        and _are_counts(row[2])
        for row in value
    )


def _may_be_numbers(value: Any) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) == 7
        and _are_counts(value[:4])
        and all(isinstance(number, float) for number in value[4:])
    )


_ENTRIES = {
    "core": ("bytes or None", lambda value: value is None or isinstance(value, bytes)),
    "step": ("a count", _is_count),
    "should_stop": ("a bool", _is_bool),
    "modules": ("a list of names", _are_names),
    "calls": ("a list of counts", _are_counts),
    "replays": ("a count", _is_count),
    "culprits": ("a list of counts", _are_counts),
    "culprits_sought": ("a bool", _is_bool),
    "operation_sought": ("a bool", _is_bool),
    "loss": ("a float or None", _may_be_float),
    "metric": ("a float or None", _may_be_float),
    "inputs": ("seven numbers or None", _may_be_numbers),
    "targets": ("seven numbers or None", _may_be_numbers),
    "rows": ("a list of names, counts and rows", _are_rows),
}


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
