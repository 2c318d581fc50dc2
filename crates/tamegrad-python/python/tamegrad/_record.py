"""A run in a run folder: how it begins, and the ways in which it ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import sys
import threading
import weakref
from multiprocessing import parent_process, util
from pathlib import Path
from typing import Any, Literal

from ._core import Guard as Core
from ._core import Recorder, end_runs
from ._telling import TamegradWarning, warn

IfRunExists = Literal["number", "overwrite", "resume"]

_of_sys = vars(sys).get
_COMPLETED = "completed"
_CTRL_C = "stopped by Ctrl-C"

_open: weakref.WeakSet[Any] = weakref.WeakSet()
"""The guards whose runs are recorded, for the end of the process."""
if hasattr(os, "register_at_fork"):
    # A child has the guards of its parent, but their runs go on there.
    os.register_at_fork(after_in_child=_open.clear)


class Recording:
    """Records a run in a folder from the first step to the last.

    A thread in Rust writes. What goes wrong with the disk during the run is warned of and never raised.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        if_run_exists: IfRunExists,
        source: str,
        environment: dict[str, str],
    ) -> None:
        """Raises ``OSError`` if nothing can be written there."""
        if not isinstance(run, (str, os.PathLike)):
            raise TypeError(f"run: got {type(run).__name__}, want the path of a folder")
        if not os.fspath(run):
            raise ValueError("run: got an empty path, want that of a folder, such as 'runs/first'")
        known = {
            "python": platform.python_version(),
            "script": sys.argv[0] if sys.argv else "",
            **environment,
        }
        # Only a program whose main thread trains is one whose end is that of the run.
        is_main = threading.current_thread() is threading.main_thread()
        # The loop may change the working directory.
        folder = os.path.abspath(run)
        self._recorder = Recorder(folder, if_run_exists, source, known, is_main)
        self._core: Core | None = None
        self._earlier = id(_exception())

    @property
    def folder(self) -> Path:
        """Where the run is."""
        return self._recorder.folder

    def belongs_to(self, guard: Any) -> None:
        """Ends the run when its guard is collected, and closes the guard when the process ends."""
        weakref.finalize(guard, self.end, how=_COMPLETED).atexit = False
        if parent_process() is not None and not _open:
            # A process of multiprocessing ends without what is registered at exit.
            util.Finalize(None, _close_all, exitpriority=0)
        _open.add(guard)

    def name_ranks(self, step: int, ranks: list[int]) -> None:
        """Notes which ranks have caused the alarm of a step."""
        self._recorder.name_ranks(step, ranks)

    def take(self, core: Core) -> None:
        """Hands over the step that a guard has seen last."""
        self._core = core
        self._earlier = id(_exception())
        news = self._recorder.take(core)
        if news is not None:
            _tell(news)

    def end(self, core: Core | None = None, how: str | None = None) -> None:
        """Ends the run with the diagnosis of a guard, that of the last step if none is given. Without
        ``how``, an exception that came after the last step says how."""
        if how is None:
            error = _exception()
            how = _COMPLETED if id(error) == self._earlier else _words(error)
        unwritten = self._recorder.finish(core or self._core, how)
        if unwritten is not None:
            _tell(unwritten)


def _tell(message: str) -> None:
    # Where warnings are made errors, a disk is still no reason to end a training.
    with contextlib.suppress(TamegradWarning):
        warn(message)


def _exception() -> BaseException | None:
    """The exception that is on its way, or the last one that ended a script or a cell."""
    return sys.exc_info()[1] or _of_sys("last_value")


def _words(error: BaseException | None) -> str:
    """How a run ended that an exception ended. Its message may hold data, and is left out."""
    if type(error) is SystemExit and error.__context__ is not None:
        return _words(error.__context__)
    if error is None or (type(error) is SystemExit and not error.code):
        return _COMPLETED
    return _CTRL_C if isinstance(error, KeyboardInterrupt) else f"exception: {type(error).__name__}"


@atexit.register
def _close_all() -> None:
    """Ends what is still recorded when the process ends."""
    try:
        for guard in list(_open):
            with contextlib.suppress(Exception):
                guard.close()
    finally:
        # If another Ctrl-C has come in between.
        end_runs(_CTRL_C)
