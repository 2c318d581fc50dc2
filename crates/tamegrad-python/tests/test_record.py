"""Runs in run folders: what is in them, and every way to end."""

from __future__ import annotations

import copy
import gc
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy
import pytest
import torch
from conftest import batches, learn, loop, loss_of, mlp, same_weights, times, watched

import tamegrad

HERE = Path(__file__).parent
PATIENCE = 120
unix = pytest.mark.skipif(os.name != "posix", reason="these are signals of unix")


def state(folder: Path) -> dict:
    return json.loads((folder / "diagnosis.json").read_text())


def about(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def diagnosed(folder: Path) -> dict:
    """What ``tamegrad diagnose --json`` makes of a folder."""
    command = [sys.executable, "-m", "tamegrad", "diagnose", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def script(way: str, folder: Path, **options) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "recorded.py"), way, str(folder)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, **pipes, **options)


def ended(way: str, folder: Path) -> tuple[int, str, str]:
    """Exit status, output and errors of a script that ends by itself."""
    process = script(way, folder)
    out, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, out, errors


def test_the_folder_gives_the_diagnosis_of_the_guard_to_the_letter(tmp_path, mode):
    for name, factor in (("calm", 1.0), ("broken", float("inf"))):
        model = mlp()
        optimizer, guard = watched(model, mode, run=tmp_path / name)
        loop(model, optimizer, guard, steps=120, at_step=times(factor, at=60))
        guard.close()
        live, read = guard.diagnosis().to_dict(), diagnosed(guard.run_folder)
        both = live.keys() & read.keys()
        assert {"verdict", "onset_step", "origin", "causes", "signs", "remedies"} <= both
        # The rows of a folder show when a run was well again, which its guard does not say.
        for key in both - {"recovered_step"}:
            assert json.dumps(read[key]) == json.dumps(live[key]), key
        assert state(guard.run_folder)["end"] == "completed"


def test_a_recorded_run_is_the_bare_run_and_says_what_it_is(tmp_path, mode):
    bare, model = mlp(), mlp()
    losses = loop(bare, torch.optim.SGD(bare.parameters(), lr=0.02))
    optimizer, guard = watched(model, mode, run=tmp_path / "x")
    assert about(tmp_path / "x")["source"] == "torch", "before the first step"
    assert loop(model, optimizer, guard) == losses
    guard.close()
    assert same_weights(bare, model)
    info = about(tmp_path / "x")
    assert [tensor["name"] for tensor in info["tensors"]] == [
        n for n, _ in model.named_parameters()
    ]
    environment = info["environment"]
    assert environment["torch"] == torch.__version__
    assert environment["script"] == sys.argv[0]
    wanted = {"device": "cpu", "guard": mode, "rank": "0", "ranks": "1"}
    assert wanted.items() <= environment.items()
    assert {"tamegrad", "python", "system"} <= environment.keys()
    state_at_end = state(tmp_path / "x")
    assert (state_at_end["step"], state_at_end["end"]) == (29, "completed")


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    folders = []
    for _ in range(3):
        with watched(mlp(), run=tmp_path / "x")[1] as guard:
            folders.append(guard.run_folder)
    assert folders == [tmp_path / "x", tmp_path / "x-2", tmp_path / "x-3"]


def test_a_run_is_overwritten_when_the_new_one_is_whole(tmp_path):
    for mode in ("observe", "protect"):
        optimizer, guard = watched(mlp(), mode, run=tmp_path / "x", if_run_exists="overwrite")
        during = guard.run_folder
        guard.close()
    assert (during, guard.run_folder) == (tmp_path / "x-2", tmp_path / "x")
    assert about(tmp_path / "x")["environment"]["guard"] == "protect"
    assert os.listdir(tmp_path) == ["x"]


def test_a_run_is_resumed_with_the_state_of_its_guard(tmp_path):
    poisoned = {"at_step": times(float("inf"), at=50)}
    whole = mlp()
    optimizer, guard = watched(whole, "protect")
    loop(whole, optimizer, guard, steps=60, **poisoned)

    model, saved = mlp(), None
    for part in (list(batches(60))[:52], list(batches(60))[52:]):
        optimizer, resumed = watched(model, "protect", run=tmp_path / "x", if_run_exists="resume")
        if saved is not None:
            resumed.load_state_dict(saved)
        for x, y in part:
            step = resumed.step_number
            x = x * float("inf") if step == 50 else x
            learn(loss_of(model, x, y), optimizer, resumed)
        saved = resumed.state_dict()
        resumed.close()
    assert os.listdir(tmp_path) == ["x"]
    read, live = diagnosed(tmp_path / "x"), guard.diagnosis().to_dict()
    assert json.dumps(read["signs"]) == json.dumps(live["signs"])
    events = (tmp_path / "x" / "events.jsonl").read_text().splitlines()
    kinds = [(event["kind"], event["step"]) for event in map(json.loads, events)]
    assert len(kinds) == len(guard.findings()) + len(guard.actions()), "each once"
    assert state(tmp_path / "x")["step"] == 59


def test_arrays_are_recorded(tmp_path):
    for expected in ("x", "x-2"):
        for step in range(3):
            guard = tamegrad.observe(step, 1.0, {"w": numpy.ones(3)}, run=tmp_path / "x")
        assert guard.run_folder == tmp_path / expected
    assert state(tmp_path / "x")["end"] == "completed", "the second run has ended the first"
    guard.close()
    info = about(tmp_path / "x-2")
    assert (info["source"], info["tensors"][0]["name"]) == ("arrays", "w")
    with pytest.raises(OSError, match="the run cannot be recorded"), open(tmp_path / "f", "w"):
        tamegrad.ArrayGuard(run=tmp_path / "f" / "x")
    with tamegrad.ArrayGuard(run=tmp_path / "y") as other:
        other.observe(0, 1.0, {"w": numpy.ones(3)})
    assert state(tmp_path / "y")["step"] == 0


def test_parameters_that_come_later_are_named(tmp_path):
    model, extra = mlp(), torch.nn.Parameter(torch.ones(3))
    optimizer, guard = watched(model, run=tmp_path / "x")
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": [extra]})
        learn(model(torch.ones(2, 16)).sum() + (step >= 2) * extra.sum(), optimizer, guard)
    guard.close()
    assert about(tmp_path / "x")["tensors"][-1]["name"] == "group1.0"


def foreign(path: Path) -> Path:
    (path / "x").mkdir()
    (path / "x" / "thesis.tex").write_text("mine")
    return path / "x"


def under_a_file(path: Path) -> Path:
    (path / "file").write_text("mine")
    return path / "file" / "x"


def locked(path: Path) -> Path:
    guard = tamegrad.ArrayGuard(run=path / "x")
    locked.guards.append(guard)
    return path / "x"


locked.guards = []


@pytest.mark.parametrize(
    ("run", "options", "kind", "words"),
    [
        (
            foreign,
            {},
            OSError,
            "cannot be recorded: .*/x: holds `thesis.tex`.*; want a folder that",
        ),
        (under_a_file, {}, OSError, "cannot be recorded: .*/file/x: .*; want a folder that can be"),
        (locked, {"if_run_exists": "resume"}, OSError, "is writing this run; hint: wait for it"),
        (lambda _: 3, {}, TypeError, "run: got int, want the path of a folder"),
        (lambda _: "", {}, ValueError, "run: got an empty path, want that of a folder"),
        (
            lambda path: path / "x",
            {"if_run_exists": "append"},
            ValueError,
            "if_run_exists: got `append`, want `number`, `overwrite` or `resume`",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_run(tmp_path, run, options, kind, words):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(kind, match=words):
        tamegrad.watch(model, optimizer, run=run(tmp_path), **options)
    assert not optimizer._optimizer_step_pre_hooks, "nothing is watched then"


@pytest.mark.parametrize("filters", ["always", "error"])
def test_a_disk_that_fails_is_told_once_and_the_training_goes_on(tmp_path, monkeypatch, filters):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    bare = mlp()
    loop(bare, torch.optim.SGD(bare.parameters(), lr=0.02), steps=600)
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter(filters)
        for step, (x, y) in enumerate(batches(600)):
            if step == 10:
                os.rename(tmp_path / "x", tmp_path / "y")
            learn(loss_of(model, x, y), optimizer, guard)
            if step % 200 == 100:
                time.sleep(0.7)
        guard.close()
    assert same_weights(bare, model)
    words = [str(warning.message) for warning in said]
    if filters == "always":
        assert len(words) == 2, words
        assert "the run is not recorded at present: " in words[0] and str(tmp_path) in words[0]
        assert "the diagnosis is in " in words[1]
    (fallback,) = tmp_path.glob("tamegrad-diagnosis-*.json")
    assert json.loads(fallback.read_text())["end"] == "completed"


def test_a_guard_that_is_collected_ends_its_run(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x")
    loop(model, optimizer, guard)
    del model, optimizer, guard
    gc.collect()
    assert state(tmp_path / "x")["end"] == "completed"


def test_a_guard_that_another_takes_over_from_ends_its_run(tmp_path):
    model = mlp()
    watched(model, run=tmp_path / "x")
    optimizer, guard = watched(model, run=tmp_path / "x", if_run_exists="overwrite")
    loop(model, optimizer, guard, steps=3)
    guard.close()
    assert os.listdir(tmp_path) == ["x"] and state(tmp_path / "x")["step"] == 2


def test_an_error_inside_ends_the_run_and_is_named(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x", strict=False)
    loop(model, optimizer, guard, steps=3)
    guard._steps.scan = None
    loop(model, optimizer, guard, steps=3)
    assert state(tmp_path / "x")["end"] == "tamegrad stopped watching"


def test_the_last_step_of_a_device_is_judged_at_the_end(tmp_path, monkeypatch):
    from test_device import have_a_device

    have_a_device(monkeypatch)
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x")
    loop(model, optimizer, guard, steps=31, at_step=times(float("inf"), at=30))
    assert guard._steps.core.finding_count() == 0, "it is still on its way"
    guard.close()
    assert state(tmp_path / "x")["diagnosis"]["verdict"] == "exploded"
    assert state(tmp_path / "x")["step"] == 30


def test_a_recorder_is_not_dragged_along_with_the_model(tmp_path):
    model = mlp()
    optimizer, guard = watched(model, run=tmp_path / "x")
    loop(model, optimizer, guard, steps=3)
    torch.save(model, tmp_path / "model.pt")
    twin, _ = copy.deepcopy((model, optimizer))
    assert same_weights(torch.load(tmp_path / "model.pt", weights_only=False), twin)
    with pytest.raises(TypeError, match="cannot pickle"):
        copy.deepcopy(guard)
    del twin
    gc.collect()
    loop(model, optimizer, guard, steps=3)
    guard.close()
    assert state(tmp_path / "x")["step"] == 5


ENDS = {
    "normal": (0, "completed"),
    "explodes": (0, "completed"),
    "closed": (1, "completed"),
    "raises": (1, "exception: ValueError"),
    "raises_in_with": (0, "exception: ValueError"),
    "hooked": (1, "exception: ValueError"),
    "exits": (3, "completed"),
    "trains_on": (0, "completed"),
}


@pytest.mark.parametrize("way", ENDS)
def test_every_way_to_end_writes_how_and_keeps_the_exit_code(tmp_path, way):
    code, how = ENDS[way]
    got, out, errors = ended(way, tmp_path / "x")
    assert (got, state(tmp_path / "x")["end"]) == (code, how), errors
    files = [file for file in (tmp_path / "x").iterdir() if file.is_file()]
    text = "".join(file.read_text(errors="replace") for file in files)
    assert "a secret" not in text, "a message may hold data"
    assert ("hook of the user ValueError" in out) == (way == "hooked")
    found = diagnosed(tmp_path / "x")
    assert found["verdict"] == ("exploded" if way == "explodes" else "healthy")


SIGNALS = {
    ("waits", signal.SIGINT): (-signal.SIGINT, "stopped by Ctrl-C"),
    ("waits", signal.SIGTERM): (-signal.SIGTERM, "stopped by SIGTERM"),
    ("waits_in_c", signal.SIGTERM): (-signal.SIGTERM, "stopped by SIGTERM"),
    ("handled", signal.SIGTERM): (7, None),
    ("handled_later", signal.SIGTERM): (8, "completed"),
    ("chained", signal.SIGTERM): (-signal.SIGTERM, "stopped by SIGTERM"),
    ("ended_before", signal.SIGTERM): (-signal.SIGTERM, "completed"),
    ("several", signal.SIGTERM): (-signal.SIGTERM, "stopped by SIGTERM"),
}
if os.name == "posix":
    SIGNALS[("waits", signal.SIGHUP)] = (-signal.SIGHUP, "stopped by SIGHUP")
    SIGNALS[("waits", signal.SIGKILL)] = (-signal.SIGKILL, None)


@unix
@pytest.mark.parametrize(("way", "number"), SIGNALS)
def test_a_signal_ends_the_run_and_does_what_it_did(tmp_path, way, number):
    process = script(way, tmp_path / "x")
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    process.send_signal(number)
    out, errors = process.communicate(timeout=PATIENCE)
    code, how = SIGNALS[way, number]
    assert (process.returncode, state(tmp_path / "x")["end"]) == (code, how), errors
    assert ("handler of the user" in out) == (way == "handled")
    if way == "several":
        second = state(tmp_path / "x-2")
        assert (second["end"], second["diagnosis"]["verdict"]) == ("completed", "exploded")
    if how is None:
        shown = diagnosed(tmp_path / "x")
        assert shown["end"]["state"] == "did-not-end", shown


@unix
def test_ctrl_c_twice_ends_the_run_as_well(tmp_path):
    process = script("waits", tmp_path / "x")
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    process.communicate(timeout=PATIENCE)
    assert state(tmp_path / "x")["end"] == "stopped by Ctrl-C"


@unix
def test_what_nohup_ignores_stays_ignored(tmp_path):
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = script("waits", tmp_path / "x", **ignore)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert state(tmp_path / "x")["end"] == "stopped by SIGTERM"


@unix
def test_a_forked_child_neither_writes_nor_ends_nor_warns(tmp_path):
    code, _, errors = ended("forks", tmp_path / "x")
    assert code == 0 and "Tamegrad" not in errors, errors
    assert (state(tmp_path / "x")["step"], state(tmp_path / "x")["end"]) == (19, "completed")
    assert os.listdir(tmp_path) == ["x"]


@unix
def test_workers_that_load_data_leave_the_run_alone(tmp_path):
    code, _, errors = ended("workers", tmp_path / "x")
    assert code == 0 and "Tamegrad" not in errors, errors
    for context in ("fork", "spawn"):
        folder = tmp_path / f"x-{context}"
        assert (state(folder)["step"], state(folder)["end"]) == (23, "completed")


@unix
def test_a_process_of_multiprocessing_ends_its_own_run(tmp_path):
    code, _, errors = ended("child", tmp_path / "x")
    assert code == 0, errors
    for context in ("fork", "spawn"):
        assert state(tmp_path / f"x-{context}")["end"] == "exception: ValueError", context


@unix
def test_a_folder_is_free_when_its_run_is_over_whatever_was_forked(tmp_path):
    guard = tamegrad.ArrayGuard(run=tmp_path / "x")
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        guard.close()
        resumed = tamegrad.ArrayGuard(run=tmp_path / "x", if_run_exists="resume")
        assert resumed.run_folder == tmp_path / "x"
        resumed.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@unix
def test_a_killed_run_holds_all_but_the_last_steps_and_reads_as_exploded(tmp_path):
    process = script("endless", tmp_path / "x")
    times_of: dict[int, float] = {}
    for line in iter(process.stdout.readline, ""):
        times_of[int(line)] = time.monotonic()
        if 400 in times_of and time.monotonic() > times_of[400] + 4:
            break
    process.kill()
    killed = time.monotonic()
    process.communicate(timeout=PATIENCE)
    shown = diagnosed(tmp_path / "x")
    assert (shown["verdict"], shown["onset_step"]) == ("exploded", 300)
    assert shown["end"]["state"] == "did-not-end"
    # A second on a disk that nobody else uses.
    kept = max(step for step, at in times_of.items() if at < killed - 3)
    assert shown["end"]["last_step"] >= kept
    command = [sys.executable, "-m", "tamegrad", "diagnose", str(tmp_path / "x")]
    text = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert "did not end; last seen step" in " ".join(text.stdout.split())
