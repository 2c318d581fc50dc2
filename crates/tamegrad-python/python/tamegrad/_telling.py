"""What a guard says while a run goes on: findings to a callback, numbers to loggers, warnings once."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ._core import Guard as Core
from ._core import Scan
from .diagnosis import Finding

if TYPE_CHECKING:
    from ._record import Recording

_OURS = ("tamegrad", "torch")


class TamegradWarning(UserWarning):
    """A warning from a guard; each one is shown once."""


class CallbackError(Exception):
    """Carries what the user's own ``on_finding`` has raised: it is for the loop, and no fault here."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Teller:
    """Passes on what is new."""

    def __init__(
        self,
        on_finding: Callable[[Finding], None] | None,
        loggers: Iterable[Callable[[int, dict[str, Any]], None]],
        log_every: int,
    ) -> None:
        self.told = 0
        """Findings of the core that were passed on."""
        self._on_finding = on_finding
        self._loggers = list(loggers)
        self._log_every = max(log_every, 1)
        self._warned: set[str] = set()
        self.recording: Recording | None = None
        """What writes the run to its folder."""

    def tell(self, core: Core) -> None:
        """Passes on the step that has ended, and the findings that were not before; warns of the first
        alarm."""
        if self.recording is not None:
            self.recording.take(core)
        if core.finding_count() == self.told:
            return
        rows = core.findings(self.told)
        self.told += len(rows)
        for row in rows:
            finding = Finding._of(row)
            if self._on_finding is not None:
                try:
                    self._on_finding(finding)
                except Exception as error:
                    raise CallbackError(error) from error
            if finding.severity == "alarm":
                place = finding.tensor or finding.layer
                self.warn(
                    f"step {finding.step}: {finding.title}"
                    + (f" ({place})" if place else "")
                    + "; see guard.diagnosis()",
                    once_for="alarm",
                )

    def fail(self, message: str) -> None:
        """Tells that watching has ended, where filters of warnings cannot hide it as well."""
        logging.getLogger("tamegrad").error(message)
        self.warn(message)

    def log(self, step: int, loss: float | None, gradients: Scan, names: list[str]) -> None:
        """Gives the numbers of a step to the loggers, every so many steps."""
        if not self._loggers or step % self._log_every:
            return
        values = {
            "loss": loss,
            "gradient_norm": gradients.norm(),
            "nonfinite": gradients.nonfinite(),
            "norms": dict(zip(names, gradients.norms(), strict=True)),
        }
        for logger in self._loggers:
            logger(step, values)

    def warn(self, message: str, once_for: str | None = None) -> None:
        """Warns, the first time."""
        key = once_for or message
        if key not in self._warned:
            self._warned.add(key)
            warn(message)


def warn(message: str) -> None:
    """Warns, at the line that called tamegrad."""
    warnings.warn(message, TamegradWarning, stacklevel=_level_of_caller())


def _level_of_caller() -> int:
    """The level of the line that called tamegrad, or torch and through it tamegrad."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _OURS:
        frame, level = frame.f_back, level + 1
    return level
