"""``tamegrad fix train.py:objective``."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .table import plain

_TARGET = re.compile(
    r"(?P<file>.+\.py):(?P<name>[A-Za-z_][\w.]*)|(?P<module>[A-Za-z_][\w.]*):(?P<own>[A-Za-z_][\w.]*)"
)
FIXED, FOUND, FAILED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes, as docs/commands.md has them."""


def is_ours(arguments: Sequence[str]) -> bool:
    """Whether a command line is ``fix`` with an objective, or asks for the help of that."""
    if not arguments or arguments[0] != "fix":
        return False
    rest = arguments[1:]
    return any(map(_TARGET.fullmatch, rest)) or rest in ([], ["--help"], ["-h"])


def main(arguments: Sequence[str]) -> int:
    """Runs the command and gives its exit code."""
    args = _parser().parse_args(arguments)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        print("tamegrad fix: got a Python without torch; pip install torch", file=sys.stderr)
        return FAILED
    from .outcome import EXPLODING
    from .search import ObjectiveError, fix

    try:
        found = fix(
            load(args.objective),
            args.budget,
            direction=args.direction,
            seed=args.seed,
            workers=args.workers,
            folder=args.out,
            on_trial=None if args.quiet else _tell,
        )
        if args.out is not None:
            found.save(args.out)
    except (ObjectiveError, ValueError, OSError, ImportError, AttributeError) as error:
        print(f"tamegrad fix: {plain(str(error))}", file=sys.stderr)
        return FAILED
    print(found.to_json() if args.json else found, end="")
    if found.is_interrupted:
        return INTERRUPTED
    if found.is_fixed:
        return FIXED
    # A training that learns nothing without exploding is not an explosion.
    return FOUND if found.given is not None and found.given.verdict in EXPLODING else FIXED


def load(target: str) -> Callable[[Any], Any]:
    """The objective of ``train.py:objective`` or ``package.module:objective``.

    Raises ``ValueError`` if there is none, ``ImportError`` if the module cannot be imported.
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        raise ValueError(f"objective: got {target!r}, want train.py:objective or module:objective")
    name = match["name"] or match["own"]
    if match["file"]:
        path = Path(match["file"]).resolve()
        if not path.is_file():
            raise ValueError(f"{match['file']}: no such file; want train.py:objective")
        folder, module_name = str(path.parent), path.stem
    else:
        folder, module_name = os.getcwd(), match["module"]
    if folder not in sys.path:
        sys.path.insert(0, folder)
    found: Any = importlib.import_module(module_name)
    file = getattr(found, "__file__", None)
    if match["file"] and (file is None or Path(file).resolve() != path):
        raise ValueError(f"{target}: the name {module_name} is taken by {file}; rename your file")
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ValueError(f"{target}: got no function {name} in it, want objective(trial)")
    return found


def _tell(outcome: Any) -> None:
    verdict = outcome.verdict if outcome.status in ("finished", "stopped") else outcome.status
    metric = "" if outcome.metric is None else f"  validation {outcome.metric:.4g}"
    line = f"{outcome.label} ({outcome.stage}): {verdict}{metric}  {outcome.seconds:.1f} s"
    print(plain(line), file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tamegrad fix",
        description="Search for the smallest change that keeps your own PyTorch training from exploding.",
        epilog="The module is imported, so code that is to run only as a script must stand under "
        '`if __name__ == "__main__":`. Exit codes: 0 healthy or fixed, 1 exploding and not fixed, 2 could not run, '
        "130 interrupted.",
    )
    parser.add_argument("objective", help="train.py:objective, a function objective(trial)")
    parser.add_argument(
        "--budget",
        type=float,
        default=3.0,
        help="most that it may cost, in multiples of one training (default: 3)",
    )
    parser.add_argument("--workers", type=int, default=1, help="number of processes (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first run (default: 0)")
    parser.add_argument(
        "--direction",
        choices=("maximize", "minimize"),
        default="maximize",
        help="whether a good metric is high or low (default: maximize)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for journal and report; a search that it holds is continued",
    )
    parser.add_argument("--quiet", action="store_true", help="print no progress")
    return parser
