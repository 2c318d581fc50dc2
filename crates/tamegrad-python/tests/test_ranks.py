"""Two processes on the CPU: statistics over shards, one decision for all, the culprit named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import tamegrad

HERE = Path(__file__).parent


def run(tmp_path: Path, kind: str, mode: str, fault: str = "-", **more: str) -> list[dict]:
    """The reports of both ranks; ``more`` are variables of the environment."""
    report = tmp_path / f"{kind}-{mode}-{fault}"
    arguments = [str(HERE / "ranks.py"), kind, mode, fault]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "REPORT": str(report), "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run(
        command + arguments,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(Path(f"{report}.{rank}").read_text()) for rank in (0, 1)]


@pytest.fixture(params=["ddp", "fsdp2"])
def kind(request):
    return request.param


def test_the_norm_is_that_of_the_whole_gradient_on_every_rank(tmp_path, kind):
    bare, watched = run(tmp_path, kind, "bare"), run(tmp_path, kind, "observe")
    assert watched[0]["norms"] == watched[1]["norms"]
    assert watched[0]["norms"] == pytest.approx(watched[0]["oracle"], rel=1e-6)
    assert [r["weights"] for r in watched] == [r["weights"] for r in bare]


def test_ranks_that_may_average_by_hand_are_told_how_to_decide_together(monkeypatch, told, mode):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group=None: 0)
    model = torch.nn.Linear(2, 2)
    tamegrad.watch(model, torch.optim.SGD(model.parameters(), lr=0.1), mode).detach()
    assert ["process_group" in message for message in told()] == [True] * (mode == "protect")


def test_all_ranks_leave_out_the_step_that_one_has_broken(tmp_path, kind):
    reports = run(tmp_path, kind, "protect", fault="1")
    assert [r["actions"] for r in reports] == [[[20, "skip"]]] * 2
    assert reports[0]["weights"] == reports[1]["weights"]
    assert all(weight == weight for weight in reports[0]["weights"])
    assert [r["culprits"] for r in reports] == [[1], [1]]
    assert reports[0]["text"] == reports[1]["text"]


def test_the_first_rank_records_the_run_of_all(tmp_path, kind):
    folder = tmp_path / "x"
    reports = run(tmp_path, kind, "protect", fault="1", RUN=str(folder))
    assert [r["run_folder"] for r in reports] == [str(folder), None]
    assert [path.name for path in tmp_path.glob("x*")] == ["x"]
    known = json.loads((folder / "diagnosis.json").read_text())
    assert (known["step"], known["end"]) == (29, "completed")
    assert known["diagnosis"]["onset_step"] == reports[0]["onset"] == 20, (
        "of the other rank's batch"
    )
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    named = [(e["step"], e["data"]["ranks"]) for e in events if e["kind"] == "ranks"]
    assert named == [(20, [1])]
    environment = json.loads((folder / "run.json").read_text())["environment"]
    assert (environment["rank"], environment["ranks"]) == ("0", "2")


def test_gains_name_the_layer_and_seeing_them_changes_nothing(tmp_path, kind):
    bare, watched = run(tmp_path, kind, "bare", "switch"), run(tmp_path, kind, "observe", "switch")
    assert [(r["onset"], r["origin"]) for r in watched] == [(120, "4")] * 2
    assert watched[0]["text"] == watched[1]["text"]
    assert [r["weights"] for r in watched] == [r["weights"] for r in bare]


def test_clipping_is_that_of_torch_on_whole_tensors(tmp_path, kind):
    bare, watched = run(tmp_path, kind, "bare", "clip"), run(tmp_path, kind, "observe", "clip")
    assert watched[0]["each"] == watched[1]["each"]
    assert max(watched[0]["oracle"]) == pytest.approx(0.05, rel=1e-5), "it clips"
    for ours, theirs in zip(watched[0]["each"], bare[0]["each"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_when_tamegrad_fails_on_one_rank_all_stop_watching_and_train_on(tmp_path, kind):
    expect_the_end_of_all(tmp_path, kind, "bug", "tamegrad failed inside on rank 1")


def test_when_one_rank_closes_its_guard_the_others_do_not_wait_for_it(tmp_path):
    expect_the_end_of_all(tmp_path, "ddp", "close", "tamegrad closed its guard on rank 1")


def expect_the_end_of_all(tmp_path: Path, kind: str, fault: str, why: str) -> None:
    bare, watched = run(tmp_path, kind, "bare", fault), run(tmp_path, kind, "observe", fault)
    assert [r["stopped"] for r in watched] == [True, True]
    assert watched[0]["failure"].endswith(f"at step 10: OthersStopped: {why}"), "no timeout"
    assert [r["weights"] for r in watched] == [r["weights"] for r in bare]
