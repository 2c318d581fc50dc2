"""The step of an alarm in a folder: what is kept, that it can be repeated, and that nothing is disturbed."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import json
import os
import random
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy
import pytest
import torch
from conftest import batches, is_finite, learn, loop, loss_of, mlp, state_bits, times, watched
from test_device import have_a_device
from torch import nn

import tamegrad
from tamegrad import _incident_writer, _safetensors

FAULT = 20
BROKEN = times(float("nan"), at=FAULT)


class Dropping(nn.Module):
    """A model whose pass draws from torch's random state, with a running mean and a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.norm, self.drop = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.b, self.head = nn.Linear(16, 16), nn.Linear(16, 4)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.drop(self.norm(self.a(x)))))


def kept(folder: Path, model: nn.Module | None = None, *, mode="observe", kind=torch.optim.Adam):
    """A run whose step 20 breaks: model, optimizer, guard and what was kept of the step."""
    model = Dropping() if model is None else model
    optimizer, guard = watched(model, mode, kind, incidents=folder)
    loop(model, optimizer, guard, steps=30, at_step=BROKEN)
    return model, optimizer, guard, tamegrad.load_incident(guard.incident_folder)


def about(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "incident.json").read_text())


def test_the_first_alarm_keeps_the_step_as_it_was_before_its_update(tmp_path, mode):
    model, optimizer, guard, incident = kept(tmp_path, mode=mode)
    assert guard.incident_folder == tmp_path / "incident-20"
    assert os.listdir(tmp_path) == ["incident-20"], "one, and no half-written folder"
    assert incident.step == FAULT
    assert incident.loss != incident.loss
    assert incident.diagnosis["verdict"] in ("exploded", "exploding", "recovered")
    assert "private training data" in incident.about["about"]
    x, _ = list(batches(FAULT + 1))[FAULT]
    assert incident.batch.shape == x.shape
    assert bool(incident.batch.isnan().all())

    bare = Dropping()
    plain = torch.optim.Adam(bare.parameters(), lr=0.02)
    loop(bare, plain, steps=FAULT)
    fresh = Dropping()
    other = torch.optim.Adam(fresh.parameters(), lr=0.5)
    incident.restore(fresh, other)
    for (name, got), want in zip(fresh.named_parameters(), bare.parameters(), strict=True):
        assert torch.equal(got, want), name
    got, want = other.state_dict(), plain.state_dict()
    assert got["param_groups"] == want["param_groups"]
    assert [*got["state"]] == [*want["state"]]
    for place, state in want["state"].items():
        for key, value in state.items():
            assert torch.equal(got["state"][place][key], value), (place, key)


def test_the_diagnosis_of_an_incident_follows_the_schema(tmp_path):
    schema = Path(__file__).parents[3] / "docs/diagnosis.schema.json"
    *_, incident = kept(tmp_path)
    held = about(incident.folder)["diagnosis"]
    jsonschema.validate(held, json.loads(schema.read_text()))
    assert (held["verdict"], held["failure"], held["notes"]) == ("exploded", None, [])


def test_a_restored_model_draws_what_it_drew_in_the_step(tmp_path):
    model = Dropping()
    optimizer, guard = watched(model, incidents=tmp_path)
    (x, y) = next(batches(1))
    output = model(x)
    learn(nn.functional.cross_entropy(output, y) * float("nan"), optimizer, guard)
    torch.randn(7)
    incident = tamegrad.load_incident(guard.incident_folder)
    fresh = Dropping()
    incident.restore(fresh)
    assert torch.equal(fresh(incident.batch), output), "with the same elements dropped"


def test_modes_of_modules_and_random_states_are_put_back(tmp_path):
    model = Dropping()
    _, guard = watched(model)
    model.norm.eval()
    random.seed(1), numpy.random.seed(2), torch.manual_seed(3)
    folder = guard.dump(tmp_path, batch=torch.ones(2))
    drawn = (random.random(), numpy.random.rand(), torch.rand(1).item())
    fresh = Dropping()
    tamegrad.load_incident(folder).restore(fresh)
    assert (random.random(), numpy.random.rand(), torch.rand(1).item()) == drawn
    assert (fresh.training, fresh.norm.training, fresh.a.training) == (True, False, True)


def test_a_watched_run_is_the_bare_run_to_the_bit(tmp_path):
    states = []
    for incidents in (None, tmp_path):
        torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
        model = Dropping()
        mode = None if incidents is None else "observe"
        optimizer, guard = watched(model, mode, torch.optim.Adam, incidents=incidents or False)
        loop(model, optimizer, guard, steps=40, at_step=BROKEN)
        chance = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state())
        states.append((state_bits(model, optimizer), chance[:2], chance[2].tolist()))
        assert guard is None or guard.incident_folder is not None
    assert states[0] == states[1]


def test_it_is_written_where_the_user_says_or_in_the_run_folder_or_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for incidents, run, want in (
        (True, "runs/a", "runs/a/incident-20"),
        ("own", "runs/b", "own/incident-20"),
        ("own", None, "own/incident-20-2"),
        (True, None, None),
        (False, "runs/c", None),
    ):
        model = mlp()
        optimizer, guard = watched(model, incidents=incidents, run=run)
        loop(model, optimizer, guard, steps=25, at_step=BROKEN)
        guard.close()
        found = guard.incident_folder
        assert found == (None if want is None else tmp_path / want), (incidents, run)
    assert sorted(os.listdir("own")) == ["incident-20", "incident-20-2"]
    with pytest.raises(TypeError, match="incidents: got int, want the path of a folder, True"):
        watched(mlp(), incidents=3)


def test_a_run_with_an_incident_can_be_resumed_and_diagnosed(tmp_path):
    for steps, exists in ((25, "number"), (5, "resume")):
        model = mlp()
        optimizer, guard = watched(model, run=tmp_path / "x", if_run_exists=exists)
        loop(model, optimizer, guard, steps=steps, at_step=BROKEN)
        guard.close()
        assert guard.run_folder == tmp_path / "x"
    assert tamegrad.load_incident(tmp_path / "x" / "incident-20").step == FAULT


@dataclasses.dataclass
class Batch:
    ids: torch.Tensor
    extra: dict[str, Any]


class Colour(enum.IntEnum):
    RED = 3


Pair = collections.namedtuple("Pair", ["left", "right"])


def nest() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, generator=generator)
    return {
        "floats": [x, x.half(), x.bfloat16(), x.double()],
        "float8": x.to(torch.float8_e4m3fn),
        "complex": (torch.complex(x, -x), torch.complex(x, x).to(torch.complex128).conj()),
        "ints": [torch.arange(5, dtype=d) for d in (torch.int8, torch.int64, torch.uint8)],
        "wide": torch.arange(5).to(torch.uint16),
        "mask": x > 0,
        "views": (x.t(), x[::2, 1:], x[:1].expand(4, 6)),
        "same": [x, x],
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(float("nan")),
        "leaf": x.clone().requires_grad_(),
        "texts": ["a\u00e4\ud800", "", None, True, 3, -0.0, 1e300, 1 << 80],
        "odd": [float("inf"), complex(1, float("-inf")), b"\x00\xff"],
        "kinds": (torch.float16, torch.device("cuda:1"), torch.Size([2, 3])),
        3: {(1, "k"): {"deep": [[[()]]]}},
        "set": {1, 2},
        "array": numpy.arange(6, dtype="float32").reshape(2, 3)[:, ::-1],
        "number": numpy.float64(2.5),
        "user": collections.UserDict(a=x),
        "pair": Pair(1, x),
        "batch": Batch(torch.arange(3), {"note": "n"}),
        "space": SimpleNamespace(x=x),
        "red": Colour.RED,
    }


def assert_same(got: Any, want: Any, path: str = "batch") -> None:
    """Compares the rebuilt nest with what was given."""
    if isinstance(want, torch.Tensor):
        assert (got.dtype, got.shape) == (want.dtype, want.shape), path
        assert got.requires_grad == want.requires_grad, path
        assert _safetensors.bytes_of(got) == _safetensors.bytes_of(want), path
    elif isinstance(want, collections.abc.Mapping):
        assert [*got] == [*want], path
        for key in want:
            assert_same(got[key], want[key], f"{path}[{key!r}]")
    elif isinstance(want, (list, tuple)):
        assert isinstance(got, list) == isinstance(want, list), path
        assert len(got) == len(want), path
        for index, item in enumerate(want):
            assert_same(got[index], item, f"{path}[{index}]")
    elif isinstance(want, (Batch, SimpleNamespace)):
        assert_same(vars(got), vars(want), path)
    elif isinstance(want, (numpy.ndarray, numpy.generic)):
        assert (numpy.asarray(got) == want).all(), path
        assert got.dtype == want.dtype, path
    else:
        assert repr(got) == repr(int(want) if isinstance(want, Colour) else want), path


def test_a_batch_of_every_kind_comes_back(tmp_path):
    _, guard = watched(mlp())
    incident = tamegrad.load_incident(guard.dump(tmp_path, batch=nest()))
    assert incident.lost == []
    assert_same(incident.batch, nest())
    assert incident.batch["user"].a.shape == (4, 6), "by attribute, as of a BatchEncoding"
    assert incident.batch["pair"].right.shape == (4, 6)
    assert incident.batch["same"][0] is incident.batch["same"][1]
    assert not list(tmp_path.rglob("*.p*kl*"))


def test_what_cannot_be_kept_is_named(tmp_path):
    _, guard = watched(mlp())
    loop_of: list[Any] = []
    loop_of.append(loop_of)
    batch = {
        "x": torch.ones(2),
        "sparse": torch.eye(3).to_sparse(),
        "meta": torch.ones(2, device="meta"),
        "function": [1, len],
        "loop": loop_of,
        "long": 1 << 5000,
    }
    incident = tamegrad.load_incident(guard.dump(tmp_path, batch=batch))
    assert torch.equal(incident.batch["x"], torch.ones(2))
    lost = dict(text.split(": ", 1) for text in incident.lost)
    assert lost["batch['sparse']"] == "a sparse, nested or quantised tensor"
    assert lost["batch['meta']"] == "a tensor without memory"
    assert lost["batch['function'][1]"] == "builtins.builtin_function_or_method"
    assert lost["batch['long']"] == "a number of 5001 bits"
    assert any("too deeply" in kind for kind in lost.values())
    assert repr(incident.batch["sparse"]) == "<not saved: a sparse, nested or quantised tensor>"


def test_without_a_given_batch_it_is_what_the_model_was_called_with(tmp_path):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, x, mask=None, scale=1.0):
            return self.layer(x) * scale

    model, x, mask = Two(), torch.randn(2, 3), torch.tensor([True, False])
    _, guard = watched(model)
    cases = {
        "one": (lambda: model(x), x),
        "several": (lambda: model(x, mask, 2.0), (x, mask, 2.0)),
        "named": (lambda: model(x=x, mask=mask), {"x": x, "mask": mask}),
    }
    for name, (call, want) in cases.items():
        guard._steps.passes.calls.clear()
        call()
        incident = tamegrad.load_incident(guard.dump(tmp_path / name))
        assert_same(incident.batch, want, name)
        assert incident.about["batch"]["from"] == "calls"
    model(x, mask=mask)
    incident = tamegrad.load_incident(guard.dump(tmp_path / "calls"))
    assert [[*call] for call in incident.batch] == [["module", "args", "kwargs"]] * 2
    assert_same(incident.calls[1]["kwargs"], {"mask": mask})


def test_each_rank_names_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(_incident_writer._ranks, "rank_and_size", lambda group: (1, 2))
    _, guard = watched(mlp())
    folder = guard.dump(tmp_path)
    assert folder.name == "incident-0-rank1"
    assert (about(folder)["rank"], about(folder)["ranks"]) == (1, 2)


def test_another_optimizer_is_refused(tmp_path):
    *_, incident = kept(tmp_path, mlp())
    fresh = mlp(seed=3)
    before = copy.deepcopy(fresh)
    half = torch.optim.Adam([*fresh.parameters()][:4])
    for other, words in (
        (half, "optimizer: got 4 parameters, want 10 as in the run"),
        ([half, torch.optim.Adam([*fresh.parameters()][4:])], "optimizer: got 2, want 1 as in"),
    ):
        with pytest.raises(ValueError, match=words):
            incident.restore(fresh, other)
    path = incident.folder / "optimizers.json"
    path.write_text(path.read_text().replace('"value": 9', '"value": 99'))
    with pytest.raises(ValueError, match="optimizers.json: got other entries, want the state of"):
        incident.restore(fresh, torch.optim.Adam(fresh.parameters()))
    assert all(map(torch.equal, fresh.parameters(), before.parameters()))


def test_parameters_of_narrow_types_are_kept(tmp_path):
    model = nn.Linear(4, 4, bias=False)
    model.register_buffer("scale", torch.ones(4).to(torch.float8_e4m3fn))
    model.register_buffer("phase", torch.ones(4, dtype=torch.complex64) * 1j)
    incident = incident_at(tmp_path, model)
    fresh = nn.Linear(4, 4, bias=False)
    fresh.register_buffer("scale", torch.zeros(4).to(torch.float8_e4m3fn))
    fresh.register_buffer("phase", torch.zeros(4, dtype=torch.complex64))
    incident.restore(fresh)
    assert_same(dict(fresh.named_buffers()), dict(model.named_buffers()))


def incident_at(folder: Path, model: nn.Module):
    _, guard = watched(model)
    return tamegrad.load_incident(guard.dump(folder))


def test_settings_and_hyperparameters_are_told(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, "protect", torch.optim.AdamW, lr=torch.tensor(0.25))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.ones(2, 16))
    told = about(guard.dump(tmp_path))
    assert told["autocast"] == [{"device": "cpu", "dtype": "torch.bfloat16"}]
    (row,) = told["optimizers"]["of"]
    assert row["class"] == "torch.optim.adamw.AdamW"
    assert (row["groups"][0]["lr"], row["groups"][0]["betas"]) == (0.25, [0.9, 0.999])
    assert told["flags"]["threads"] == torch.get_num_threads()
    assert {"deterministic", "tf32_matmul", "matmul_precision"} <= told["flags"].keys()
    assert told["versions"]["torch"] == torch.__version__
    assert (told["rank"], told["ranks"], told["training"]) == (0, 1, True)


def test_the_scale_of_a_loss_is_told(tmp_path):
    model = mlp()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    _, guard = watched(model, scaler=scaler)
    scaler.scale(loss_of(model, *next(batches(1))))
    assert about(guard.dump(tmp_path))["scaler"] == 1024.0


def test_large_parameters_and_batches_are_left_out_and_said(tmp_path):
    model = mlp()
    # Memory that is never touched.
    model.register_buffer("large", torch.empty(300 << 20, dtype=torch.uint8))
    optimizer, guard = watched(model, incidents=tmp_path)
    loop(model, optimizer, guard, steps=25, at_step=BROKEN)
    incident = tamegrad.load_incident(guard.incident_folder)
    assert incident.about["parameters"]["why"] == "300 MiB are above the limit of 256 MiB"
    assert sum(file.stat().st_size for file in incident.folder.iterdir()) < 1 << 20
    with pytest.raises(ValueError, match="got no parameters .300 MiB are .*latest checkpoint"):
        incident.restore(model)
    large = torch.empty(300 << 20, dtype=torch.uint8)
    incident = tamegrad.load_incident(guard.dump(tmp_path / "b", batch=[torch.ones(2), large]))
    assert incident.lost == ["batch[1]: a tensor of 300 MiB, above the limit of 256 MiB in all"]


def broken_by_its_update(folder: Path, mode: str):
    """What is kept of a run whose optimizer breaks a parameter at step 20."""

    class Breaks(torch.optim.SGD):
        def step(self, closure=None):
            super().step()
            if self.is_due:
                with torch.no_grad():
                    self.param_groups[0]["params"][0].fill_(float("nan"))

    Breaks.is_due = False
    model = mlp()
    optimizer, guard = watched(model, mode, Breaks, incidents=folder)

    def plant(step, model, optimizer, x):
        optimizer.is_due = step == FAULT
        return x

    loop(model, optimizer, guard, steps=FAULT + 1, at_step=plant)
    incident = tamegrad.load_incident(guard.incident_folder)
    assert incident.step == FAULT
    return incident


def test_parameters_of_an_update_that_was_undone_are_restored(tmp_path):
    incident = broken_by_its_update(tmp_path, "protect")
    assert incident.about["parameters"]["when"] == "before the update"
    bare, fresh = mlp(), mlp(seed=9)
    loop(bare, torch.optim.SGD(bare.parameters(), lr=0.02), steps=FAULT)
    incident.restore(fresh)
    assert all(map(torch.equal, fresh.parameters(), bare.parameters()))


def test_parameters_that_the_update_has_broken_are_not_restored(tmp_path):
    incident = broken_by_its_update(tmp_path, "observe")
    assert incident.about["parameters"]["when"] == "after the update"
    fresh = mlp(seed=9)
    before = copy.deepcopy(fresh)
    with pytest.raises(ValueError, match="after the update of step 20, which are not finite"):
        incident.restore(fresh)
    assert all(map(torch.equal, fresh.parameters(), before.parameters()))


def test_a_step_that_is_judged_later_has_its_own_batch(tmp_path, monkeypatch):
    have_a_device(monkeypatch)
    *_, incident = kept(tmp_path, mlp())
    assert incident.step == FAULT
    assert bool(incident.batch.isnan().all())
    assert incident.about["random"]["when"] == "before the first call of the model"
    assert incident.about["parameters"]["when"] == "after the update"
    assert not incident.has_usable_parameters()


def test_a_folder_that_cannot_be_written_is_warned_of_once(tmp_path, told, mode):
    (tmp_path / "file").write_text("in the way")
    model = mlp()
    optimizer, guard = watched(model, mode, incidents=tmp_path / "file" / "x", strict=False)
    losses = loop(model, optimizer, guard, steps=30, at_step=BROKEN)
    assert len(losses) == 30
    assert guard.failure is None
    said = [text for text in told() if "could not be saved" in text]
    assert len(said) == 1
    assert "NotADirectoryError" in said[0]
    assert guard.incident_folder is None
    with pytest.raises(OSError, match="file"):
        guard.dump(tmp_path / "file")
    with pytest.raises(ValueError, match="folder: got None.*guard.dump"):
        watched(mlp())[1].dump()


def test_a_disk_that_is_full_leaves_nothing_and_disturbs_nothing(tmp_path, told, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    model = mlp()
    optimizer, guard = watched(model, incidents=tmp_path / "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error", tamegrad.TamegradWarning)
        warnings.filterwarnings("ignore", message="step 20: The loss")
        loop(model, optimizer, guard, steps=30, at_step=BROKEN)
    assert os.listdir(tmp_path / "x") == []
    assert guard.failure is None
    assert guard.step_number == 30


def test_a_dump_within_an_update_does_not_write_to_the_model(tmp_path):
    model = Dropping()
    optimizer, guard = watched(model, kind=torch.optim.Adam)
    loop(model, optimizer, guard, steps=3)
    before = state_bits(model, optimizer), [p._version for p in model.parameters()]
    keys = [len(optimizer.state), torch.get_rng_state().tolist()]
    guard.dump(tmp_path)
    assert (state_bits(model, optimizer), [p._version for p in model.parameters()]) == before
    assert [len(optimizer.state), torch.get_rng_state().tolist()] == keys


# --- damaged and foreign files ---------------------------------------------------------------------


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


DAMAGE = {
    "cut": cut,
    "empty": lambda data: b"",
    "other": lambda data: b"\x80\x04\x95 a pickle, or what else",
    "list": lambda data: b"[]",
    "longer": lambda data: data + b"x",
    "header": lambda data: b"\xff" * 8 + data[8:],
}
FILES = ["incident.json", "batch.json", "batch.safetensors", "random.safetensors"]


@pytest.mark.parametrize("way", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_told(tmp_path, name, way):
    _, guard = watched(mlp())
    folder = guard.dump(tmp_path, batch=torch.ones(3))
    path = folder / name
    path.write_bytes(DAMAGE[way](path.read_bytes()))
    with pytest.raises(ValueError, match=r"got .*, want .*; the file is damaged or not from"):
        tamegrad.load_incident(folder)


def test_a_missing_file_or_folder_is_told(tmp_path):
    _, guard = watched(mlp())
    folder = guard.dump(tmp_path, batch=torch.ones(3))
    (folder / "random.safetensors").unlink()
    with pytest.raises(ValueError, match=r"got no random.safetensors, want all that was written"):
        tamegrad.load_incident(folder)
    for wrong in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=r"has no incident.json, want the folder of an inc"):
            tamegrad.load_incident(wrong)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", "tamegrad/incident/2"),
        ("step", -1),
        ("step", None),
        ("loss", "much"),
        ("parameters", {"kept": True}),
        ("parameters", 3),
        ("random", {}),
        ("eval", [1]),
        ("diagnosis", None),
        ("batch", {"lost": [1]}),
    ],
)
def test_entries_of_another_kind_are_told(tmp_path, key, value):
    _, guard = watched(mlp())
    folder = guard.dump(tmp_path, batch=torch.ones(3))
    (folder / "incident.json").write_text(json.dumps({**about(folder), key: value}))
    with pytest.raises(ValueError, match=r"incident.json: got .*, want .*; the file is damaged"):
        tamegrad.load_incident(folder)


@pytest.mark.parametrize(
    ("of", "change"),
    [("python", {"version": 9}), ("numpy", {"place": "first"}), ("numpy", {"place": 10**30})],
)
def test_random_states_that_cannot_be_taken_are_told(tmp_path, of, change):
    _, guard = watched(mlp())
    folder = guard.dump(tmp_path, batch=torch.ones(3))
    changed = about(folder)
    changed["random"][of].update(change)
    (folder / "incident.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match=r"random.safetensors: got other random states"):
        tamegrad.load_incident(folder)


@pytest.mark.parametrize(
    "node",
    [
        {"tensor": "t9"},
        {"import": "os"},
        {"value": [1]},
        {"list": 3},
        {"dtype": "os"},
        {"dict": [[{"list": []}, {"value": 1}]]},
        {"value": 1, "list": []},
        {"bytes": "%"},
        [],
    ],
)
def test_a_nest_that_was_tampered_with_is_told(tmp_path, node):
    _, guard = watched(mlp())
    folder = guard.dump(tmp_path, batch=torch.ones(3))
    path = folder / "batch.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "batch": node}))
    with pytest.raises(ValueError, match=r"batch.json: got .*, want the nest of a batch"):
        tamegrad.load_incident(folder)


def test_another_model_is_refused_before_anything_is_written(tmp_path):
    *_, incident = kept(tmp_path, mlp())
    for other, words in (
        (mlp(depth=3), r"got .*0.weight|model: got"),
        (mlp(width=33), r"model: got `0.weight` of shape .33, 16., want `0.weight` of shape .32"),
    ):
        before = copy.deepcopy(other.state_dict())
        chance = torch.get_rng_state()
        with pytest.raises(ValueError, match=words):
            incident.restore(other)
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
        assert torch.equal(torch.get_rng_state(), chance)


def test_a_damaged_file_of_parameters_leaves_the_model_alone(tmp_path):
    *_, incident = kept(tmp_path, mlp())
    path = incident.folder / "parameters.safetensors"
    path.write_bytes(cut(path.read_bytes()))
    fresh = mlp(seed=4)
    before = copy.deepcopy(fresh)
    with pytest.raises(ValueError, match="parameters.safetensors: got"):
        incident.restore(fresh)
    assert all(map(torch.equal, fresh.parameters(), before.parameters()))
    assert is_finite(fresh)


# --- the format ---------------------------------------------------------------------------------------


def tensors() -> dict[str, torch.Tensor]:
    x = torch.arange(24.0).reshape(4, 6)
    kinds = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.bool]
    kinds += [torch.uint16, torch.uint32, torch.uint64, torch.float8_e5m2]
    named = {str(kind): x.to(kind) for kind in kinds}
    return {**named, "view": x[:, ::2], "none": torch.empty(0), "one": torch.tensor(2.0)}


def test_the_safetensors_package_reads_what_is_written_and_the_other_way_round(tmp_path):
    package = pytest.importorskip("safetensors.torch")
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    _safetensors.write(ours, tensors())
    package.save_file({k: v.contiguous().clone() for k, v in tensors().items()}, theirs)
    for read in (package.load_file(ours), _safetensors.read(theirs), _safetensors.read(ours)):
        assert read.keys() == tensors().keys()
        for name, want in tensors().items():
            assert_same(read[name], want, name)


def test_tensors_begin_at_multiples_of_the_size_of_their_elements(tmp_path):
    for count in range(1, 9):
        path = tmp_path / str(count)
        _safetensors.write(path, {"n" * count: torch.ones(count, dtype=torch.uint8), **tensors()})
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        for name, tensor in tensors().items():
            assert (start + header[name]["data_offsets"][0]) % tensor.element_size() == 0, name


def test_no_random_change_of_a_file_does_more_than_raise(tmp_path):
    path = tmp_path / "x"
    _safetensors.write(path, {"a": torch.ones(3, 4), "b": torch.tensor([True, False])})
    data, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(2000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(data))] = chance.randrange(256)
        path.write_bytes(changed)
        try:
            _safetensors.read(path)
        except ValueError:
            refused += 1
    assert refused > 1000


def test_a_closed_folder_is_not_made_again(tmp_path, told, monkeypatch):
    # Where the diagnosis of such a run is put.
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x", strict=False)
    loop(model, optimizer, guard, steps=3)
    # In one go: what writes to the folder adds files meanwhile.
    (tmp_path / "x").rename(tmp_path / "gone")
    learn(loss_of(model, *next(batches(1))) * float("nan"), optimizer, guard)
    assert not (tmp_path / "x").exists()
    assert guard.failure is None
    guard.close()
    assert sum("could not be saved" in text for text in told()) == 1


def test_random_states_are_asked_for_only_where_an_alarm_would_be_written(tmp_path):
    for incidents, is_kept in ((False, False), (True, False), (tmp_path, True)):
        model = mlp()
        _, guard = watched(model, incidents=incidents)
        model(torch.ones(2, 16))
        (call,) = guard._steps.passes.calls
        assert (call.chance is not None) == is_kept, incidents
    assert _incident_writer._chance().keys() == {"torch"}
