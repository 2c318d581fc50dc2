"""Saves the step of an alarm in a folder, so that it can be rerun."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import _ranks, _safetensors
from ._calls import Call
from ._incident_files import (
    BEFORE_UPDATE,
    MAIN_FILE,
    SCHEMA,
    modules_of,
    tensors_of,
)
from ._json import json_number, write_json
from ._names import class_name
from ._nest import Nest
from ._optimizers import parameters_in
from ._ranks import local_shard
from ._state import random_state
from ._telling import TamegradWarning, Teller
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ._passes import Passes
    from ._step import Step
    from ._steps import Steps

_ABOUT = (
    "The step of a training run at which tamegrad raised an alarm. It may contain private training "
    "data: batch.safetensors and batch.json hold what the model was given, and the parameters may "
    "tell what they were trained on. Look at it before you pass it on."
)
_BYTES_MAX = 256 << 20
"""Bytes of the batch, of parameters and buffers, and of the optimizers' state, each."""
_NUMBERS_MAX = 1_000
"""Folders of one step."""
_AFTER = "after the update"
_AT_CALL = "when dump was called"
Place = bool | str | os.PathLike[str]


class Incidents:
    """Keeps the step of the first alarm of a guard."""

    def __init__(self, model: nn.Module, place: Place, group: Any, teller: Teller) -> None:
        """``place`` is a folder, true for that of the run, or false for none.

        Raises ``TypeError`` if it is something else.
        """
        if not isinstance(place, (bool, str, os.PathLike)):
            raise TypeError(
                f"incidents: got {type(place).__name__}, want the path of a folder, True for the run "
                "folder, or False for none"
            )
        self.model = model
        self._teller = teller
        # The loop may change the working directory.
        self._place = place if isinstance(place, bool) else Path(os.path.abspath(place))
        self._rank, self._ranks = _ranks.rank_and_size(group)
        self._is_done = False
        self.folder: Path | None = None
        """Where the step of the first alarm was written."""

    def attach(self, passes: Passes) -> None:
        """Has the random states kept with the model's calls, if an alarm would be written."""
        if self._where() is not None:
            passes.chance_before = _chance

    def kept_of(self, calls: list[Call]) -> list[Call]:
        """What is kept of calls for a step that is judged later: not the gradients, which are large."""
        if self._is_done or self._where() is None:
            return []
        return [call.without_gradients() for call in calls]

    def see_alarm(
        self,
        steps: Steps,
        step: Step,
        loss: float | None,
        calls: list[Call] | None = None,
        *,
        is_before: bool = False,
    ) -> None:
        """Writes the step of the first alarm, whose update is to come or, with ``is_before``, was not made
        or undone. What goes wrong is warned of once and never raised."""
        folder = self._where()
        if self._is_done or folder is None:
            return
        self._is_done = True
        steps.passes.chance_before = _nothing
        when = BEFORE_UPDATE if is_before or step is steps.step else _AFTER
        try:
            self.folder = self._write(steps, folder, step.number, loss, when, calls)
        except Exception as error:
            # Where warnings are made errors, a disk is still no reason to end a training.
            with contextlib.suppress(TamegradWarning):
                self._teller.warn(
                    f"step {step.number} could not be saved in {folder}: {_words(error)}; training "
                    "goes on. guard.dump(folder) saves it elsewhere"
                )

    def dump(self, steps: Steps, folder: Any = None, batch: Any = None) -> Path:
        """Writes the step at hand, as :meth:`tamegrad.Guard.dump` does."""
        where = self._where() if folder is None else Path(os.path.abspath(folder))
        if where is None:
            raise ValueError(
                "folder: got None, and the run is not recorded, so there is no folder to write to; "
                "call guard.dump('incidents')"
            )
        return self._write(steps, where, steps.step.number, None, _AT_CALL, None, batch)

    def _where(self) -> Path | None:
        if isinstance(self._place, Path):
            return self._place
        recording = self._teller.recording
        return recording.folder if self._place and recording is not None else None

    def _write(
        self,
        steps: Steps,
        folder: Path,
        number: int,
        loss: float | None,
        when: str,
        calls: list[Call] | None,
        batch: Any = None,
    ) -> Path:
        name = f"incident-{number}"
        if self._ranks > 1:
            name += f"-rank{self._rank}"
        # A reader never sees half of it, and neither does a run that is killed meanwhile leave one.
        made = folder / f".{name}.{os.getpid()}.new"
        recording = self._teller.recording
        if recording is None or folder != recording.folder:
            folder.mkdir(parents=True, exist_ok=True)
        made.mkdir()
        try:
            about = {"schema": SCHEMA, "about": _ABOUT, "step": number, "loss": json_number(loss)}
            calls = steps.passes.calls if calls is None else calls
            batch = steps.passes.logged.batch if batch is None else batch
            about["batch"] = _write_batch(made, batch, calls)
            about["random"] = _write_random(made, calls)
            about["parameters"] = _write_parameters(made, self.model, when)
            about["optimizers"] = _write_optimizers(made, self.model, steps, when)
            about |= _circumstances(self.model, steps, calls)
            about |= {"rank": self._rank, "ranks": self._ranks}
            about["diagnosis"] = Diagnosis(steps.core_or_new()).to_dict()
            write_json(made / MAIN_FILE, about)
            return _settle(made, folder, name)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise


def _write_batch(folder: Path, batch: Any, calls: list[Call]) -> dict[str, Any]:
    rows = [{"module": c.name, "args": tuple(c.args), "kwargs": dict(c.kwargs)} for c in calls]
    # Under one limit, and a tensor that both hold is written once.
    nest = Nest({"batch": batch, "calls": rows}, bytes_max=_BYTES_MAX, root="")
    nodes = {key["value"]: node for key, node in nest.node["dict"]}
    _safetensors.write(folder / "batch.safetensors", nest.tensors)
    given = None if batch is None else nodes["batch"]
    elsewhere = [name for name, tensor in nest.tensors.items() if tensor.device.type != "cpu"]
    kept = {"batch": given, "calls": nodes["calls"], "on_device": elsewhere}
    write_json(folder / "batch.json", kept)
    source = "given" if batch is not None else "calls" if calls else None
    lost = [[path.replace("['batch']", "batch").lstrip("."), kind] for path, kind in nest.lost]
    return {"from": source, "bytes": nest.bytes, "bytes_max": _BYTES_MAX, "lost": lost}


def _write_random(folder: Path, calls: list[Call]) -> dict[str, Any]:
    state = random_state()
    before = next((call.chance for call in calls if call.chance is not None), None)
    state |= before or {}
    tensors = {"torch": state["torch"]}
    for index, value in enumerate(state.get("cuda", ())):
        tensors[f"cuda.{index}"] = value
    version, words, gauss = state["python"]
    tensors["python"] = torch.tensor(words, dtype=torch.int64)
    about: dict[str, Any] = {
        "when": "before the first call of the model" if before else "when this was written",
        "python": {"version": version, "gauss": gauss},
        "numpy": None,
    }
    numpy = state.get("numpy")
    if isinstance(numpy, tuple) and numpy[0] == "MT19937":
        tensors["numpy"] = torch.tensor(numpy[1].tolist(), dtype=torch.int64)
        about["numpy"] = {"place": numpy[2], "has_gauss": numpy[3], "gauss": numpy[4]}
    _safetensors.write(folder / "random.safetensors", tensors)
    return about


def _write_parameters(folder: Path, model: nn.Module, when: str) -> dict[str, Any]:
    tensors = {name: local_shard(tensor).detach() for name, tensor in tensors_of(model).items()}
    about: dict[str, Any] = {
        "kept": False,
        "when": when,
        "bytes": sum(map(_safetensors.size_of, tensors.values())),
        "bytes_max": _BYTES_MAX,
        "why": None,
        "are_finite": None,
        "shapes": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "dtypes": {name: str(tensor.dtype) for name, tensor in tensors.items()},
    }
    refused = [(name, _safetensors.why_not(tensor)) for name, tensor in tensors.items()]
    about["why"] = next((f"`{name}` is {why}" for name, why in refused if why), None)
    if about["bytes"] > _BYTES_MAX:
        about["why"] = _too_large(about["bytes"])
    if about["why"] is None:
        about["are_finite"] = all(map(_is_finite, tensors.values()))
        about["kept"] = True
        _safetensors.write(folder / "parameters.safetensors", tensors)
    return about


def _write_optimizers(folder: Path, model: nn.Module, steps: Steps, when: str) -> dict[str, Any]:
    optimizers = steps.scaling.optimizers
    rows = [_optimizer_row(optimizer, model) for optimizer in optimizers]
    size = sum(_safetensors.size_of(tensor) for tensor in _tensors_in(rows))
    about: dict[str, Any] = {
        "kept": size <= _BYTES_MAX,
        "when": when,
        "bytes": size,
        "bytes_max": _BYTES_MAX,
        "why": None if size <= _BYTES_MAX else _too_large(size),
        "lost": [],
        "of": [
            {
                "class": class_name(optimizer),
                "parameters": len(parameters_in(optimizer)),
                "groups": [_words_of(group) for group in row["groups"]],
            }
            for optimizer, row in zip(optimizers, rows, strict=True)
        ],
    }
    if about["kept"]:
        nest = Nest(rows, bytes_max=_BYTES_MAX, root="optimizers")
        _safetensors.write(folder / "optimizers.safetensors", nest.tensors)
        write_json(folder / "optimizers.json", {"optimizers": nest.node})
        about["lost"] = [list(pair) for pair in nest.lost]
    return about


def _optimizer_row(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """State by place in the groups, and the groups without their parameters."""
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    state = {}
    for place, parameter in enumerate(parameters_in(optimizer)):
        # Not by its key, which would make an entry.
        if parameter in optimizer.state:
            held = optimizer.state[parameter]
            state[place] = {key: _local_of(value) for key, value in held.items()}
    return {"state": state, "groups": groups}


def _circumstances(model: nn.Module, steps: Steps, calls: list[Call]) -> dict[str, Any]:
    """Versions, settings and modes."""
    autocast = calls[-1].autocast if calls else []
    eval_modules = [name for name, module in modules_of(model) if not module.training]
    return {
        "versions": _versions(),
        "flags": flags(),
        "autocast": [{"device": kind, "dtype": str(dtype)} for kind, dtype in autocast],
        "training": model.training,
        "eval": eval_modules,
        "devices": sorted({str(tensor.device) for tensor in tensors_of(model).values()}),
        "scaler": json_number(steps.scaling.scale()),
    }


def _versions() -> dict[str, Any]:
    from importlib import metadata

    own = None
    with contextlib.suppress(metadata.PackageNotFoundError):
        own = metadata.version("tamegrad")
    versions: dict[str, Any] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tamegrad": own,
        "cuda": torch.version.cuda,
        "platform": platform.platform(),
        "device": None,
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        versions["device"] = torch.cuda.get_device_name()
        versions["cudnn"] = torch.backends.cudnn.version()
    return versions


def flags() -> dict[str, Any]:
    """The settings of torch that change numbers."""
    readers = {
        "default_dtype": lambda: str(torch.get_default_dtype()),
        "threads": torch.get_num_threads,
        "deterministic": torch.are_deterministic_algorithms_enabled,
        "matmul_precision": torch.get_float32_matmul_precision,
        "tf32_matmul": lambda: torch.backends.cuda.matmul.allow_tf32,
        "tf32_cudnn": lambda: torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": lambda: torch.backends.cudnn.benchmark,
        "cudnn_deterministic": lambda: torch.backends.cudnn.deterministic,
    }
    known: dict[str, Any] = {}
    for name, read in readers.items():
        # torch refuses to tell some where both its old and its new names were set.
        with contextlib.suppress(Exception):
            known[name] = read()
    return known


def _chance() -> dict[str, Any] | None:
    """The random states of torch, but while a graph is captured, which forbids to ask."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        if torch.cuda.is_current_stream_capturing():
            return None
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _nothing() -> None:
    return None


def _local_of(value: Any) -> Any:
    return local_shard(value) if isinstance(value, torch.Tensor) else value


def _tensors_in(value: Any) -> Iterable[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors_in(item)


def _is_finite(tensor: torch.Tensor) -> bool:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    # torch does not ask that of types of eight bits.
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())


def _words_of(group: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters as JSON."""
    known: dict[str, Any] = {}
    for key, value in group.items():
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            value = value.item()
        if isinstance(value, (list, tuple)):
            known[key] = [_json(item) for item in value]
        else:
            known[key] = _json(value)
    return known


def _json(value: Any) -> Any:
    is_plain = value is None or isinstance(value, (bool, int, float, str))
    return json_number(value) if is_plain else class_name(value)


def _too_large(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB are above the limit of {_BYTES_MAX >> 20} MiB"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _settle(made: Path, folder: Path, name: str) -> Path:
    """Gives the finished folder its name, with a number if there is one of that name."""
    for number in range(1, _NUMBERS_MAX):
        path = folder / (name if number == 1 else f"{name}-{number}")
        if path.exists():
            continue
        os.rename(made, path)
        _sync(folder)
        return path
    raise FileExistsError(f"{folder / name} and {_NUMBERS_MAX} more names are taken")


def _sync(folder: Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can do that."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
