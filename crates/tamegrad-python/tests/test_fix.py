"""The search for a fix of a user's own training: what it finds, costs and keeps."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import fix_objectives as objectives
import pytest
import torch
from fix_objectives import train
from torch import nn

import tamegrad
from tamegrad._fix.journal import FILE
from tamegrad._fix.search import Options, search

HERE = Path(__file__).parent


def lines(found: tamegrad.Fix) -> list[tuple]:
    """What a search did, without the time it took."""
    return [(t.key, t.status, t.verdict, t.metric, t.test, t.steps, t.cost) for t in found.trials]


@pytest.fixture(scope="module")
def repaired() -> tamegrad.Fix:
    return tamegrad.fix(objectives.too_high)


def test_a_healthy_training_is_left_alone_and_costs_itself():
    found = tamegrad.fix(objectives.healthy)
    assert (len(found.trials), found.cost, found.best) == (1, 1.0, found.given)
    assert found.is_fixed and found.best.code() is None
    assert "is healthy and is left alone" in str(found)


def test_a_rate_that_is_too_high_is_lowered_within_the_budget(repaired):
    assert repaired.given.verdict == "exploded" and repaired.given.metric is None
    assert repaired.best.verdict == "healthy" and repaired.best.part == 1.0
    assert [change.kind for change in repaired.best.changes] == ["learning-rate"]
    assert repaired.best.test > 0.85
    assert repaired.cost <= 3.0
    assert 'group["lr"] = ' in repaired.best.code("pytorch")


def test_only_trials_to_the_end_look_at_the_test_part(repaired):
    assert {trial.part for trial in repaired.trials if trial.test is not None} == {1.0}
    assert [trial.test for trial in repaired.trials if trial.part < 1.0] != []


def test_every_trial_says_why_it_was_not_chosen(repaired):
    reasons = [trial["why_not"] for trial in repaired.to_dict()["trials"]]
    chosen = repaired.trials.index(repaired.best)
    assert [at for at, reason in enumerate(reasons) if not reason] == [chosen]
    assert reasons[0] == f"explodes at step {repaired.given.onset}"


def test_what_chose_is_told_where_nothing_else_was_reported():
    found = tamegrad.fix(functools.partial(train, rate=6.0, splits=("validation",)))
    assert found.best.test is None
    assert "no test metric was reported" in found.summary()


def test_the_number_of_workers_changes_nothing(repaired):
    with_two = tamegrad.fix(objectives.too_high, workers=2)
    assert lines(with_two) == lines(repaired)


def test_a_search_goes_on_after_a_kill(repaired, tmp_path):
    ran: list[str] = []

    class Killed(Exception):
        pass

    def kill(outcome):
        ran.append(outcome.key)
        if len(ran) == 3:
            raise Killed

    with pytest.raises(Killed):
        tamegrad.fix(objectives.too_high, folder=tmp_path, on_trial=kill)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"label": "cut by the ki')
    resumed = tamegrad.fix(objectives.too_high, folder=tmp_path, on_trial=kill)
    assert lines(resumed) == lines(repaired)
    assert len(ran) == len(set(ran)) == len(repaired.trials)


def test_the_journal_of_another_objective_is_refused(tmp_path):
    (tmp_path / FILE).write_text(
        json.dumps({"format": "tamegrad-fix/1", "objective": "x:y"}) + "\n"
    )
    with pytest.raises(
        ValueError, match="want that of 'fix_objectives:healthy'|fix_objectives:train"
    ):
        tamegrad.fix(objectives.healthy, folder=tmp_path)


def test_ctrl_c_keeps_what_is_known(repaired):
    def interrupt(outcome):
        if outcome.stage == "seed":
            raise KeyboardInterrupt

    found = tamegrad.fix(objectives.too_high, on_trial=interrupt)
    before = [line for line in lines(repaired) if "part=1 " not in line[0]]
    assert found.is_interrupted and lines(found)[1:] == lines(repaired)[1 : len(found.trials)]
    assert len(before) >= 2 and "interrupted" in found.summary()


def test_an_exception_ends_its_trial_and_is_told():
    found = tamegrad.fix(objectives.raises)
    tried = found.trials[1:]
    assert {trial.status for trial in tried} <= {"failed", "refused", "stopped"}
    failed = next(trial for trial in tried if trial.status == "failed")
    assert failed.error.startswith("ValueError: the disk is full (") and failed.changes
    assert "fix_objectives.py" in failed.error and found.best is None
    assert "the objective raised ValueError" in found.to_dict()["trials"][-1]["why_not"]


def test_an_exception_in_the_training_as_given_is_raised():
    with pytest.raises(RuntimeError, match="KeyError: 'no such table'"):
        tamegrad.fix(objectives.broken)


def test_rows_that_are_no_numbers_are_left_out():
    found = tamegrad.fix(functools.partial(train, nan=True))
    assert [change.kind for change in found.best.changes] == ["filter-rows"]
    assert found.best.verdict == "healthy" and found.best.test > 0.85


@pytest.mark.parametrize("only", ["depth", "nothing"])
def test_changes_that_need_a_knob_which_is_not_offered_are_advice(only):
    def objective(trial):
        model = objectives.network(trial.depth(3) if only == "depth" else 3)
        optimizer = torch.optim.SGD(model.parameters(), lr=6.0, momentum=0.9)
        model, optimizer = trial.prepare(model, optimizer)
        x, y = objectives.data()
        for step in range(trial.steps(120)):
            rows = slice(step % 16 * 32, step % 16 * 32 + 32)
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            trial.report(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return objectives.accuracy(model, x[512:1024], y[512:1024])

    found = tamegrad.fix(objective)
    needing = [advice for advice in found.advice if "trial.depth(...)" in advice.why]
    assert (needing == []) == (only == "depth")
    assert found.best.metric > 0.85 and found.is_fixed


def test_another_order_of_the_candidates_is_taken(repaired):
    turned = search(objectives.too_high, Options(2.0, 1.0, 0, lambda found: found[::-1]))
    assert turned.trials[1].label != repaired.trials[1].label
    assert turned.cost <= 2.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 0.5}, "budget: got 0.5, want at least 1.0"),
        ({"budget": math.nan}, "budget: got nan"),
        ({"direction": "up"}, "direction: got 'up'"),
        ({"workers": 0}, "workers: got 0"),
    ],
)
def test_options_out_of_their_domain_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tamegrad.fix(objectives.healthy, **options)


def test_a_saved_result_holds_table_change_and_json(repaired, tmp_path):
    folder = repaired.save(tmp_path / "fix")
    assert sorted(p.name for p in folder.iterdir()) == ["change.py", "report.json", "report.txt"]
    report = json.loads((folder / "report.json").read_text())
    assert report["schema"] == "tamegrad/torch-fix/1" and report["best"] == repaired.best.key
    assert (folder / "change.py").read_text() == repaired.best.code() + "\n"


def test_the_command_fixes_an_objective_of_a_file(tmp_path):
    def run(*arguments):
        command = [sys.executable, "-m", "tamegrad", "fix", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    target = f"{HERE / 'fix_objectives.py'}:too_high"
    fixed = run(target, "--json", "--out", str(tmp_path))
    assert fixed.returncode == 0 and json.loads(fixed.stdout)["is_fixed"] is True, fixed.stderr
    assert (tmp_path / "report.txt").exists() and "as given (given): exploded" in fixed.stderr
    missing = run(f"{HERE / 'fix_objectives.py'}:nothing")
    assert missing.returncode == 2 and "got no function nothing" in missing.stderr
