"""The command line: ``tamegrad`` and ``python -m tamegrad``."""

from __future__ import annotations

import sys

from ._core import run_command


def main() -> int:
    """Runs the command of ``sys.argv`` and gives its exit code."""
    if sys.argv[1:2] == ["fix"]:
        from ._fix import command

        if command.is_ours(sys.argv[1:]):
            return command.main(sys.argv[2:])
    return run_command(["tamegrad", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
