"""Observes any loop that can pass its gradients as arrays: JAX, Keras, NumPy."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ._core import Guard as Core
from ._core import Scan, Updates
from ._record import IfRunExists, Recording
from .diagnosis import Diagnosis, Finding


class ArrayGuard:
    """The guard of a run whose gradients are passed as named arrays. It observes and never acts.

    ``run`` and ``if_run_exists`` are those of :func:`tamegrad.watch`::

        with tamegrad.ArrayGuard(run="runs/first") as guard:
            guard.observe(0, 2.3, {"w": numpy.ones(3)})
    """

    def __init__(
        self,
        *,
        total_steps: int | None = None,
        run: str | os.PathLike[str] | None = None,
        if_run_exists: IfRunExists = "number",
    ) -> None:
        self._total_steps = total_steps
        self._know(())
        self._core: Core | None = None
        self._scan = Scan()
        self.last_step = -1
        self._recording = None
        if run is not None:
            self._recording = Recording(run, if_run_exists, "arrays", {"guard": "observe"})
            self._recording.belongs_to(self)

    @property
    def run_folder(self) -> Path | None:
        """The folder in which the run is recorded."""
        return None if self._recording is None else self._recording.folder

    def close(self) -> None:
        """Ends the run if it is recorded. The diagnosis remains available."""
        if self._recording is not None:
            self._recording.end(self._core)

    def __enter__(self) -> ArrayGuard:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def observe(
        self,
        step: int,
        loss: float | None,
        gradients: Mapping[str, Any],
        *,
        metric: float | None = None,
        learning_rate: float | None = None,
        updates: Mapping[str, tuple[float, float]] | None = None,
    ) -> list[Finding]:
        """Observes a step; returns the signs that fired at it.

        An array is anything with DLPack, the array interface or the buffer protocol, of f32, f64,
        f16 or (through DLPack) bf16; arrays on another device are copied. ``updates`` are the norms of
        each change and of the weight before it. The names of the first step are those of the run;
        names missing from a later step count as absent.

        Raises ``TypeError`` if a gradient is not an array of floats, and ``ValueError`` for a new name.
        """
        if self._core is None:
            self._know(gradients)
            rows = [(name, None, _dims(array) >= 2, None) for name, array in gradients.items()]
            self._core = Core(rows, [], planned_steps=self._total_steps)
        arrays = self._in_order(gradients)
        for index in self._scan.tensors(arrays):
            if not self._scan.put_tensor(index, readable(arrays[index], self._names[index])):
                raise TypeError(_cannot(arrays[index], self._names[index]))
        before = self._core.finding_count()
        self._core.observe(
            step,
            self._scan,
            loss=None if loss is None else float(loss),
            metric=None if metric is None else float(metric),
            learning_rate=None if learning_rate is None else float(learning_rate),
        )
        self._core.observe_update(self._updates(updates))
        self.last_step = step
        if self._recording is not None:
            self._recording.take(self._core)
        return [Finding._of(row) for row in self._core.findings(before)]

    def diagnosis(self) -> Diagnosis:
        """The diagnosis so far."""
        return Diagnosis(self._core or Core([], []))

    def state_dict(self) -> dict[str, Any]:
        """The guard's state, to be saved with a checkpoint: bytes, a number and names."""
        core = None if self._core is None else self._core.state()
        return {"core": core, "names": list(self._names), "last_step": self.last_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the state that :meth:`state_dict` returned.

        Raises ``ValueError`` if this is not such a state or if it is damaged; the guard is then unchanged.
        """
        try:
            core, names, last_step = state["core"], list(state["names"]), int(state["last_step"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"state: got {type(state).__name__} that is not a guard's state ({error}), want what "
                "state_dict() returned"
            ) from error
        restored = None
        if core is not None:
            restored = Core.restored(core, names, planned_steps=self._total_steps)
        self._core, self.last_step = restored, last_step
        self._know(names)

    def _know(self, names: Iterable[str]) -> None:
        """Takes these as the names of the run, in this order."""
        self._names = list(names)
        self._known = set(self._names)

    def _in_order(self, gradients: Mapping[str, Any]) -> list[Any]:
        """The arrays in the order of the names; ``None`` for those that are absent."""
        if list(gradients) == self._names:
            return list(gradients.values())
        new = next((name for name in gradients if name not in self._known), None)
        if new is not None:
            raise ValueError(f"gradients: got the new name {new!r}, want those of the first step")
        return [gradients.get(name) for name in self._names]

    def _updates(self, norms: Mapping[str, tuple[float, float]] | None) -> Updates | None:
        if norms is None:
            return None
        updates = Updates()
        updates.clear(len(self._names))
        for index, name in enumerate(self._names):
            row = self._scan.get(index)
            if name in norms and row is not None:
                change, weight = norms[name]
                broken = 0 if change == change and abs(change) != float("inf") else 1
                updates.put(index, float(change), float(weight), row[0], broken)
        return updates


_run: ArrayGuard | None = None


def observe(
    step: int,
    loss: float | None,
    gradients: Mapping[str, Any],
    *,
    run: str | os.PathLike[str] | None = None,
    if_run_exists: IfRunExists = "number",
    **more: Any,
) -> ArrayGuard:
    """Calls :meth:`ArrayGuard.observe` on one guard for the whole process; returns that guard.

    A step number that does not follow the last one ends that run and begins a new one. ``run`` and
    ``if_run_exists`` are those of :func:`tamegrad.watch`, and count where a run begins. For several runs at
    once, create an :class:`ArrayGuard` for each.
    """
    global _run
    if _run is None or step <= _run.last_step:
        if _run is not None:
            _run.close()
        _run = ArrayGuard(run=run, if_run_exists=if_run_exists)
    _run.observe(step, loss, gradients, **more)
    return _run


class _Buffer:
    """The memory of an object with the buffer protocol, told by the array interface."""

    def __init__(self, view: memoryview, kind: str) -> None:
        if view.readonly or not view.c_contiguous:
            view = memoryview(bytearray(view.tobytes()))
        self._view = view.cast("B")
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._view)) if len(self._view) else 1
        size = int(kind[2:])
        self.__array_interface__ = {
            "version": 3,
            "typestr": kind,
            "shape": (len(self._view) // size,),
            "data": (address, False),
        }


_FORMATS = {"f": "f4", "d": "f8", "e": "f2"}


def readable(array: Any, name: str) -> Any:
    """An object with the same elements that the core can read in place."""
    for convert in (_by_dlpack, _by_interface, _by_buffer):
        found = convert(array)
        if found is not None:
            return found
    raise TypeError(_cannot(array, name))


def _by_dlpack(array: Any) -> Any:
    if not hasattr(array, "__dlpack__"):
        return None
    try:
        import numpy

        return numpy.ascontiguousarray(numpy.from_dlpack(array))
    except (ImportError, BufferError, RuntimeError, TypeError, ValueError):
        return None


def _by_interface(array: Any) -> Any:
    if not (hasattr(array, "__array_interface__") or hasattr(array, "__array__")):
        return None
    import numpy

    dense = numpy.ascontiguousarray(array)
    if dense.dtype.kind == "V" or dense.dtype.name == "bfloat16":
        return dense.astype(numpy.float32)
    return dense


def _by_buffer(array: Any) -> Any:
    try:
        view = memoryview(array)
    except TypeError:
        return None
    kind = _FORMATS.get(view.format.lstrip("<=@"))
    if kind is None:
        return None
    import sys

    return _Buffer(view, ("<" if sys.byteorder == "little" else ">") + kind)


def _dims(array: Any) -> int:
    shape = getattr(array, "shape", None)
    return len(shape) if shape is not None else memoryview(array).ndim


def _cannot(array: Any, name: str) -> str:
    kind = getattr(array, "dtype", None)
    got = type(array).__name__ + (f" of {kind}" if kind is not None else "")
    return f"{name}: got {got}, want an array of f32, f64, f16 or bf16"
