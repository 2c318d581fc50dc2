"""Reads the step of an alarm that was saved in a folder."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import _safetensors
from ._incident_files import (
    BEFORE_UPDATE,
    MAIN_FILE,
    SCHEMA,
    modules_of,
    tensors_of,
)
from ._json import read_json
from ._nest import Lost, mapped, rebuilt
from ._optimizers import parameters_in, resolved
from ._ranks import local_shard
from ._safetensors import damaged
from ._state import random_state, set_random_state

_CPU = torch.device("cpu")


class Incident:
    """A step that was saved; read by :func:`tamegrad.load_incident`."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self.folder = folder
        self.about = about
        """All of ``incident.json``: versions, settings, what was saved and what was not."""
        self.step: int = about["step"]
        self.loss: float | None = None if about["loss"] is None else float(about["loss"])
        self.diagnosis: dict[str, Any] = about["diagnosis"]
        """The diagnosis at the alarm, in the schema of docs/json.md."""
        self.lost: list[str] = [f"{path}: {kind}" for path, kind in about["batch"]["lost"]]
        """What part of the batch could not be saved."""
        self.batch: Any = None
        """The batch that was given to ``guard.log(batch=...)`` or ``guard.dump(batch=...)``; otherwise
        what the model was called with: the argument itself if there was one, a tuple of several, a
        dictionary of named ones, and ``calls`` if it was called more than once or with both kinds."""
        self.calls: list[dict[str, Any]] = []
        """The calls of the model, each with ``module``, ``args`` and ``kwargs``."""
        self._read_batch()
        self._chance = _read_random(folder, about["random"])

    def restore(self, model: nn.Module, optimizer: Any = None) -> None:
        """Puts parameters, buffers, modes of training and random states back into a model, and state
        and hyperparameters into its optimizer, so that the step can be rerun.

        Raises ``ValueError`` if the model has other names or shapes, or if the parameters were not saved
        or are not finite because the update broke them; nothing has then been changed.
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
                local_shard(tensor).copy_(value)
        for place, optimizer in enumerate(optimizers):
            _restore_optimizer(optimizer, model, states[place])
        self.restore_modes(model)
        self.restore_random()

    def batch_for(self, model: nn.Module) -> Any:
        """A copy of the batch, in which the tensors that were not on the CPU are on the device of a
        model."""
        device = next((tensor.device for tensor in tensors_of(model).values()), _CPU)
        moved = set(map(id, self._on_device))

        def copied(tensor: torch.Tensor) -> torch.Tensor:
            fresh = tensor.detach().clone()
            fresh = fresh.to(device) if id(tensor) in moved else fresh
            return fresh.requires_grad_(tensor.requires_grad)

        return mapped(self.batch, copied)

    def restore_modes(self, model: nn.Module) -> None:
        """Puts each module into training or evaluation mode, as it was."""
        for name, module in modules_of(model):
            module.training = name not in self.about["eval"]

    def restore_random(self) -> None:
        """Puts the random states back."""
        if self._chance:
            set_random_state({**random_state(), **self._chance})

    def has_usable_parameters(self) -> bool:
        """Whether the parameters were kept, and are those from before the update or at least finite."""
        kept = self.about["parameters"]
        return kept["kept"] and (kept["when"] == BEFORE_UPDATE or kept["are_finite"])

    def check(self, model: nn.Module) -> None:
        """Raises ``ValueError`` if a model has other parameters or buffers than that of the incident."""
        want = {name: list(shape) for name, shape in self.about["parameters"]["shapes"].items()}
        got = {name: list(local_shard(tensor).shape) for name, tensor in tensors_of(model).items()}
        for name in [*want, *got]:
            if want.get(name) != got.get(name):
                raise ValueError(
                    f"model: got {_shown(name, got)}, want {_shown(name, want)} as in the model of "
                    f"{self.folder}; pass that model"
                )

    def _read_batch(self) -> None:
        nest = read_json(self.folder / "batch.json")
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
        for name, tensor in tensors_of(model).items():
            if name not in read or read[name].shape != local_shard(tensor).shape:
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
            if len(parameters_in(optimizer)) != row["parameters"]:
                raise ValueError(
                    f"optimizer: got {len(parameters_in(optimizer))} parameters, want "
                    f"{row['parameters']} as in the run; create it as in the run"
                )
        path = self.folder / "optimizers.json"
        tensors = _safetensors.read(self.folder / "optimizers.safetensors")
        try:
            states = rebuilt(read_json(path)["optimizers"], tensors)
            counts = [len(parameters_in(optimizer)) for optimizer in optimizers]
            return [_checked_state(row, count) for row, count in zip(states, counts, strict=True)]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise damaged(path, str(error), "the state of optimizers") from None

    def __repr__(self) -> str:
        return f"Incident(step={self.step}, loss={self.loss}, folder={str(self.folder)!r})"


def load_incident(folder: str | os.PathLike[str]) -> Incident:
    """Reads a step that a guard has saved: the folder ``incident-<step>`` of a run folder, or the one
    that :meth:`tamegrad.Guard.dump` returned.

    Nothing in the folder is executed: it holds JSON and safetensors, and no pickles.

    Raises ``ValueError`` if it is another folder or a file is damaged, and ``OSError`` if a file cannot
    be read.
    """
    place = Path(folder)
    path = place / MAIN_FILE
    if not path.is_file():
        raise ValueError(
            f"folder: got {os.fspath(folder)!r}, which has no {MAIN_FILE}, want the folder of an incident; "
            "guard.incident_folder says where it is"
        )
    about = read_json(path)
    if about.get("schema") != SCHEMA:
        raise damaged(path, f"schema {about.get('schema')!r}", repr(SCHEMA))
    _check(path, about)
    try:
        return Incident(place, about)
    except FileNotFoundError as error:
        raise damaged(place, f"no {Path(error.filename).name}", "all that was written") from None


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
    parameters = parameters_in(optimizer)
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


def _shown(name: str, shapes: dict[str, list[int]]) -> str:
    shape = shapes.get(name)
    return f"no `{name}`" if shape is None else f"`{name}` of shape {tuple(shape)}"


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
