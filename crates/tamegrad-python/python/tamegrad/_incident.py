"""The step of an alarm, kept in a folder so that it can be repeated."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import random
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import _ranks, _safetensors
from ._calls import Call
from ._names import plain, unwrapped
from ._nest import Lost, Nest, mapped, rebuilt
from ._optimizers import resolved
from ._safetensors import damaged
from ._state import random_state, set_random_state
from ._telling import TamegradWarning, Teller
from .diagnosis import Diagnosis

if TYPE_CHECKING:
    from ._passes import Passes
    from ._step import Step
    from ._steps import Steps

SCHEMA = "tamegrad/incident/1"
_ABOUT = (
    "The step of a training run at which tamegrad raised an alarm. It may contain private training "
    "data: batch.safetensors and batch.json hold what the model was given, and the parameters may "
    "tell what they were trained on. Look at it before you pass it on."
)
_BYTES_MAX = 256 << 20
"""Bytes of the batch, of parameters and buffers, and of the optimizers' state, each."""
_NUMBERS_MAX = 1_000
"""Folders of one step."""
_CPU = torch.device("cpu")
_MAIN = "incident.json"
_BEFORE = "before the update"
_AFTER = "after the update"
_AT_CALL = "at the call of dump"

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
        when = _BEFORE if is_before or step is steps.step else _AFTER
        try:
            self.folder = self._write(steps, folder, step.number, loss, when, calls)
        except Exception as error:
            # Where warnings are made errors, a disk is still no reason to end a training.
            with contextlib.suppress(TamegradWarning):
                self._teller.warn(
                    f"step {step.number} was not kept in {folder}: {_words(error)}; the training goes "
                    "on. guard.dump(folder) writes elsewhere"
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
            about = {"schema": SCHEMA, "about": _ABOUT, "step": number, "loss": _number(loss)}
            calls = steps.passes.calls if calls is None else calls
            batch = getattr(steps.passes, "batch", None) if batch is None else batch
            about["batch"] = _write_batch(made, batch, calls)
            about["random"] = _write_random(made, calls)
            about["parameters"] = _write_parameters(made, self.model, when)
            about["optimizers"] = _write_optimizers(made, self.model, steps, when)
            about |= _circumstances(self.model, steps, calls)
            about |= {"rank": self._rank, "ranks": self._ranks}
            about["diagnosis"] = Diagnosis(steps.core_or_new()).to_dict()
            _write_json(made / _MAIN, about)
            return _settle(made, folder, name)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise


class Incident:
    """A step that was kept; read by :func:`tamegrad.load_incident`."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        """All of ``incident.json``: versions, settings, what was kept and what not."""
        self.step: int = about["step"]
        self.loss: float | None = None if about["loss"] is None else float(about["loss"])
        self.diagnosis: dict[str, Any] = about["diagnosis"]
        """The diagnosis at the alarm, in the schema of docs/json.md."""
        self.lost: list[str] = [f"{path}: {kind}" for path, kind in about["batch"]["lost"]]
        """What of the batch could not be kept."""
        self.batch: Any = None
        """The batch that was given to ``guard.log(batch=...)`` or ``guard.dump(batch=...)``; else what
        the model was called with: the argument if it was one, several in a tuple, named ones in a
        dictionary, and ``calls`` if it was called more than once or with both."""
        self.calls: list[dict[str, Any]] = []
        """The calls of the model, each with ``module``, ``args`` and ``kwargs``."""
        self._read_batch()
        self._chance = _read_random(folder, about["random"])

    def restore(self, model: nn.Module, optimizer: Any = None) -> None:
        """Puts parameters, buffers, modes of training and random states back into a model, and state
        and hyperparameters into its optimizer, so that the step can be taken again.

        Raises ``ValueError`` if the model has other names or shapes, if the parameters were not kept, or
        are those from after the update and not finite; nothing has then been changed.
        """
        self.check(model)
        kept = self.about["parameters"]
        if not kept["kept"]:
            raise ValueError(
                f"{self.folder}: got no parameters ({kept['why']}), want those from before the step; "
                "load your latest checkpoint into the model instead"
            )
        if not self.has_usable_parameters():
            raise ValueError(
                f"{self.folder}: got the parameters from {kept['when']} of step {self.step}, which are "
                "not finite, want those from before it; load your latest checkpoint into the model "
                "instead"
            )
        values = self._parameters(model)
        optimizers = [] if optimizer is None else resolved(optimizer)
        states = self._optimizer_states(optimizers)
        with torch.no_grad():
            for tensor, value in values:
                _local(tensor).copy_(value)
        for place, optimizer in enumerate(optimizers):
            _restore_optimizer(optimizer, model, states[place])
        self.restore_modes(model)
        self.restore_random()

    def batch_for(self, model: nn.Module) -> Any:
        """A copy of the batch, in which the tensors that were not on the CPU are on the device of a
        model."""
        device = next((tensor.device for tensor in _tensors_of(model).values()), _CPU)
        moved = set(map(id, self._on_device))

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            fresh = tensor.detach().clone()
            fresh = fresh.to(device) if id(tensor) in moved else fresh
            return fresh.requires_grad_(tensor.requires_grad)

        return mapped(self.batch, copied)

    def restore_modes(self, model: nn.Module) -> None:
        """Puts each module into training or evaluation mode, as it was."""
        for name, module in _modules_of(model):
            module.training = name not in self.about["eval"]

    def restore_random(self) -> None:
        """Puts the random states back."""
        if self._chance:
            set_random_state({**random_state(), **self._chance})

    def has_usable_parameters(self) -> bool:
        """Whether the parameters were kept, and are those from before the update or at least finite."""
        kept = self.about["parameters"]
        return kept["kept"] and (kept["when"] == _BEFORE or kept["are_finite"])

    def check(self, model: nn.Module) -> None:
        """Raises ``ValueError`` if a model has other parameters or buffers than that of the incident."""
        want = {name: list(shape) for name, shape in self.about["parameters"]["shapes"].items()}
        got = {name: list(_local(tensor).shape) for name, tensor in _tensors_of(model).items()}
        for name in [*want, *got]:
            if want.get(name) != got.get(name):
                raise ValueError(
                    f"model: got {_shown(name, got)}, want {_shown(name, want)} as in the model of "
                    f"{self.folder}; pass that model"
                )

    def _read_batch(self) -> None:
        nest = _read_json(self.folder / "batch.json")
        path = self.folder / "batch.safetensors"
        tensors = _safetensors.read(path)
        try:
            self.calls = rebuilt(nest["calls"], tensors)
            given = nest["batch"]
            batch = None if given is None else rebuilt(given, tensors)
            self.batch = _batch_of(self.calls) if given is None else batch
            # Held, so that no other tensor gets their ids.
            self._on_device = [tensors[name] for name in nest["on_device"]]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise damaged(self.folder / "batch.json", str(error), "the nest of a batch") from None

    def _parameters(self, model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
        path = self.folder / "parameters.safetensors"
        read = _safetensors.read(path)
        pairs = []
        for name, tensor in _tensors_of(model).items():
            if name not in read or read[name].shape != _local(tensor).shape:
                raise damaged(path, f"no `{name}` of this shape", "what incident.json lists")
            pairs.append((tensor, read[name]))
        return pairs

    def _optimizer_states(self, optimizers: list[torch.optim.Optimizer]) -> list[dict[str, Any]]:
        rows = self.about["optimizers"]
        if not optimizers:
            return []
        if len(optimizers) != len(rows["of"]):
            raise ValueError(
                f"optimizer: got {len(optimizers)}, want {len(rows['of'])} as in the run; pass them as "
                "a list in the same order"
            )
        if not rows["kept"]:
            raise ValueError(
                f"{self.folder}: got no state of the optimizer ({rows['why']}); restore the model "
                "alone and load your latest checkpoint into the optimizer"
            )
        for optimizer, row in zip(optimizers, rows["of"], strict=True):
            if len(_parameters_in(optimizer)) != row["parameters"]:
                raise ValueError(
                    f"optimizer: got {len(_parameters_in(optimizer))} parameters, want "
                    f"{row['parameters']} as in the run; make it as the run does"
                )
        path = self.folder / "optimizers.json"
        tensors = _safetensors.read(self.folder / "optimizers.safetensors")
        try:
            states = rebuilt(_read_json(path)["optimizers"], tensors)
            counts = [len(_parameters_in(optimizer)) for optimizer in optimizers]
            return [_checked_state(row, count) for row, count in zip(states, counts, strict=True)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(path, str(error), "the state of optimizers") from None

    def __repr__(self) -> str:
        return f"Incident(step={self.step}, loss={self.loss}, folder={str(self.folder)!r})"


def load_incident(folder: str | os.PathLike[str]) -> Incident:
    """Reads a step that a guard has kept, ``incident-<step>`` of a run folder or what
    :meth:`tamegrad.Guard.dump` returned.

    Nothing in the folder is executed: it holds JSON and safetensors, and no pickles.

    Raises ``ValueError`` if it is no such folder or a file is damaged, and ``OSError`` if one cannot be
    read.
    """
    place = Path(folder)
    path = place / _MAIN
    if not path.is_file():
        raise ValueError(
            f"folder: got {os.fspath(folder)!r}, which has no {_MAIN}, want the folder of an incident; "
            "guard.incident_folder tells where it is"
        )
    about = _read_json(path)
    if about.get("schema") != SCHEMA:
        raise damaged(path, f"schema {about.get('schema')!r}", repr(SCHEMA))
    _check(path, about)
    try:
        return Incident(place, about)
    except FileNotFoundError as error:
        raise damaged(place, f"no {Path(error.filename).name}", "all that was written") from None


# --- what is written -------------------------------------------------------------------------------


def _write_batch(folder: Path, batch: Any, calls: list[Call]) -> dict[str, Any]:
    rows = [{"module": c.name, "args": tuple(c.args), "kwargs": dict(c.kwargs)} for c in calls]
    # Under one limit, and a tensor that both hold is written once.
    nest = Nest({"batch": batch, "calls": rows}, bytes_max=_BYTES_MAX, root="")
    nodes = {key["value"]: node for key, node in nest.node["dict"]}
    _safetensors.write(folder / "batch.safetensors", nest.tensors)
    given = None if batch is None else nodes["batch"]
    elsewhere = [name for name, tensor in nest.tensors.items() if tensor.device.type != "cpu"]
    kept = {"batch": given, "calls": nodes["calls"], "on_device": elsewhere}
    _write_json(folder / "batch.json", kept)
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
    tensors = {name: _local(tensor).detach() for name, tensor in _tensors_of(model).items()}
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
                "class": _class(optimizer),
                "parameters": len(_parameters_in(optimizer)),
                "groups": [_words_of(group) for group in row["groups"]],
            }
            for optimizer, row in zip(optimizers, rows, strict=True)
        ],
    }
    if about["kept"]:
        nest = Nest(rows, bytes_max=_BYTES_MAX, root="optimizers")
        _safetensors.write(folder / "optimizers.safetensors", nest.tensors)
        _write_json(folder / "optimizers.json", {"optimizers": nest.node})
        about["lost"] = [list(pair) for pair in nest.lost]
    return about


def _optimizer_row(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Any]:
    """State by place in the groups, and the groups without their parameters."""
    groups = [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    state = {}
    for place, parameter in enumerate(_parameters_in(optimizer)):
        # Not by its key, which would make an entry.
        if parameter in optimizer.state:
            held = optimizer.state[parameter]
            state[place] = {key: _local_of(value) for key, value in held.items()}
    return {"state": state, "groups": groups}


def _circumstances(model: nn.Module, steps: Steps, calls: list[Call]) -> dict[str, Any]:
    """Versions, settings and modes."""
    autocast = calls[-1].autocast if calls else []
    eval_modules = [name for name, module in _modules_of(model) if not module.training]
    return {
        "versions": _versions(),
        "flags": flags(),
        "autocast": [{"device": kind, "dtype": str(dtype)} for kind, dtype in autocast],
        "training": model.training,
        "eval": eval_modules,
        "devices": sorted({str(tensor.device) for tensor in _tensors_of(model).values()}),
        "scaler": _number(steps.scaling.scale()),
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


# --- small parts -------------------------------------------------------------------------------------


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


def _tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by their plain names; those that are tied once."""
    model = unwrapped(model)
    named = [*model.named_parameters(), *model.named_buffers()]
    tensors = {plain(name): tensor for name, tensor in named}
    # A part of the model's own may have the name of a wrapper.
    return tensors if len(tensors) == len(named) else dict(named)


def _modules_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(plain(name), module) for name, module in unwrapped(model).named_modules()]


def _parameters_in(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The shard of a sharded tensor."""
    return getattr(tensor, "_local_tensor", tensor)


def _local_of(value: Any) -> Any:
    return _local(value) if isinstance(value, torch.Tensor) else value


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


def _batch_of(calls: list[dict[str, Any]]) -> Any:
    if not calls:
        return None
    args, kwargs = calls[0]["args"], calls[0]["kwargs"]
    if len(calls) > 1 or (args and kwargs):
        return calls
    if kwargs:
        return kwargs
    return args[0] if len(args) == 1 else args


def _checked_state(row: Any, count: int) -> dict[str, Any]:
    """The state of an optimizer of so many parameters.

    Raises ``ValueError`` or ``TypeError`` if it is something else.
    """
    are_known = all(type(place) is int and 0 <= place < count for place in row["state"])
    held = [*row["state"].values(), *row["groups"]]
    if not are_known or not all(isinstance(part, dict) for part in held):
        raise ValueError("other entries")
    return {"state": row["state"], "groups": row["groups"]}


def _restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, kept: dict[str, Any]
) -> None:
    for group, before in zip(optimizer.param_groups, kept["groups"], strict=False):
        known = {key: value for key, value in before.items() if not isinstance(value, Lost)}
        group.update({key: value for key, value in known.items() if key in group})
    parameters = _parameters_in(optimizer)
    optimizer.state.clear()
    groups = [group for group in optimizer.param_groups for _ in group["params"]]
    for place, state in kept["state"].items():
        parameter, group = parameters[place], groups[place]
        stays = not (group.get("capturable") or group.get("fused"))
        for key, value in state.items():
            # As torch does when it loads a state: the count of steps stays on the CPU.
            if isinstance(value, torch.Tensor) and not (key == "step" and stays):
                value = value.to(parameter.device)
            optimizer.state[parameter][key] = value


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
    if isinstance(value, float):
        return _number(value)
    return value if value is None or isinstance(value, (bool, int, str)) else _class(value)


def _number(value: float | None) -> float | str | None:
    """A number as docs/json.md has it: JSON knows neither NaN nor infinity."""
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _class(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _too_large(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB are above the limit of {_BYTES_MAX >> 20} MiB"


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _shown(name: str, shapes: dict[str, list[int]]) -> str:
    shape = shapes.get(name)
    return f"no `{name}`" if shape is None else f"`{name}` of shape {tuple(shape)}"


# --- files -------------------------------------------------------------------------------------------


def _write_json(path: Path, value: Any) -> None:
    with open(path, "x", encoding="utf-8") as file:
        json.dump(value, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"no JSON ({error})", "what was written") from None
    if not isinstance(value, dict):
        raise damaged(path, f"a {type(value).__name__}", "a dictionary")
    return value


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


def _check(path: Path, about: dict[str, Any]) -> None:
    """Raises ``ValueError`` where an entry that is used is missing or something else."""
    for key, (want, fits) in _ENTRIES.items():
        try:
            is_right = fits(about[key])
        except (KeyError, TypeError, ValueError, AttributeError):
            is_right = False
        if not is_right:
            raise damaged(path, f"{key} {str(about.get(key))[:60]!r}", want)


def _is_kept(value: Any) -> bool:
    return isinstance(value["kept"], bool) and isinstance(value["when"], str) and "why" in value


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


_ENTRIES: dict[str, Any] = {
    "step": ("a count", lambda v: type(v) is int and v >= 0),
    "loss": ("a number or null", lambda v: v is None or isinstance(float(v), float)),
    "diagnosis": ("a dictionary", lambda v: isinstance(v, dict)),
    "batch": ("what was kept", lambda v: all(_are_texts(p) and len(p) == 2 for p in v["lost"])),
    "random": ("random states", lambda v: isinstance(v["python"], dict) and "numpy" in v),
    "parameters": (
        "what was kept",
        lambda v: _is_kept(v) and all(isinstance(s, list) for s in v["shapes"].values()),
    ),
    "optimizers": ("what was kept", lambda v: _is_kept(v) and isinstance(v["of"], list)),
    "eval": ("names of modules", _are_texts),
    "autocast": ("a list", lambda v: isinstance(v, list)),
}


def _read_random(folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """The random states as far as this process can take them."""
    path = folder / "random.safetensors"
    tensors = _safetensors.read(path)
    try:
        words = tuple(tensors["python"].tolist())
        python = about["python"]
        state: dict[str, Any] = {"torch": tensors["torch"]}
        state["python"] = (python["version"], words, python["gauss"])
        # Tried on generators of our own, so that a later call cannot fail halfway.
        random.Random().setstate(state["python"])
        torch.Generator().set_state(state["torch"])
        numpy = sys.modules.get("numpy")
        if numpy is not None and about["numpy"] is not None:
            known = about["numpy"]
            words = numpy.array(tensors["numpy"].tolist(), dtype="uint32")
            state["numpy"] = ("MT19937", words, known["place"], known["has_gauss"], known["gauss"])
            numpy.random.RandomState().set_state(state["numpy"])
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise damaged(path, f"other random states ({error})", "what was written") from None
    names = [name for name in tensors if name.startswith("cuda.")]
    cuda = [tensors[f"cuda.{index}"] for index in range(len(names)) if f"cuda.{index}" in tensors]
    if (
        cuda
        and len(cuda) == len(names)
        and torch.cuda.is_available()
        and torch.cuda.device_count() == len(cuda)
    ):
        state["cuda"] = cuda
    return state
