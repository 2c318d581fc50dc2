"""How many exploding trainings ``tamegrad.fix`` repairs, and at what cost.

    python evaluation/fixes.py --seeds 2 --workers 2

Every kind is a user's objective with one fault; the same objective without it is the known-good
configuration. A training is failing if, trained to the end whatever happens, its test metric is below 80% of
that of the known-good one, or not finite. It is repaired if the change that the search chose was
trained to the end, is healthy there, and its test metric is within 2% of the known-good one. Beside it: the
same candidates in random order, and ``clip_grad_norm_(1.0)`` alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import os
import random
import time
import warnings
from pathlib import Path
from typing import Any

import fix_kinds_a
import fix_kinds_b  # noqa: F401
import torch
from fix_kind import KINDS

from tamegrad._fix.change import Change
from tamegrad._fix.outcome import Outcome, Task
from tamegrad._fix.run import run_trial
from tamegrad._fix.search import Options, search

MARGIN = 0.02
HARMED = 0.8
"""A training is failing if its test metric is below this part of the known-good one."""
CLIP = Change("clip-global-norm", {"max_norm": 1.0}, "clip_grad_norm_(1.0)", "clip at 1.0")


def near(outcome: Outcome | None, good: float) -> bool:
    """Whether the test metric is within 2% of the known-good one, or above it."""
    test = None if outcome is None else outcome.test
    return test is not None and math.isfinite(test) and test >= good - MARGIN * abs(good)


def shuffled(seed: int, candidates: list[Change]) -> list[Change]:
    """The candidates in random order."""
    order = sorted(candidates, key=lambda change: change.label)
    random.Random(seed).shuffle(order)
    return order


def judged(name: str, seed: int, budget: float, alone: bool) -> dict[str, Any]:
    """All that is measured of one case."""
    begin = time.perf_counter()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    build = KINDS[name]
    objective = functools.partial(build, fault=True)
    good = run_trial(functools.partial(build, fault=False), Task("good", seed=seed))
    bare = run_trial(objective, Task("bare", seed=seed, stops=False))
    clip = run_trial(objective, Task("clip", (CLIP,), seed, stops=False))
    row: dict[str, Any] = {
        "kind": name,
        "part": _part_of(build),
        "seed": seed,
        "good": good.test,
        "good_verdict": good.verdict,
        "bare": bare.test,
        "bare_verdict": bare.verdict,
        "failing": not (bare.test is not None and bare.test >= HARMED * (good.test or 0.0)),
        "clip": near(clip, good.test),
    }
    for way, order in (("fix", None), ("random", functools.partial(shuffled, seed))):
        if alone and way == "random":
            continue
        found = search(objective, Options(budget, 1.0, seed, order))
        best = found.best
        row |= {
            way: bool(best and best.part >= 1.0 and best.is_healthy and near(best, good.test)),
            f"{way}_cost": found.cost,
            f"{way}_best": None if best is None else best.label,
            f"{way}_test": None if best is None else best.test,
            f"{way}_short": best is not None and best.part < 1.0,
            f"{way}_healthy": best is not None and best.is_healthy,
            f"{way}_trials": [
                [
                    t.label,
                    t.stage,
                    t.verdict if t.error is None else t.error,
                    t.metric,
                    t.cost,
                    t.onset,
                ]
                for t in found.trials
            ],
        }
        if way == "fix":
            causes = found.given.facts["diagnosis"]["causes"] if found.given else []
            row["cause"] = causes[0]["name"] if causes else None
    row["seconds"] = time.perf_counter() - begin
    return row


def _judged(case: tuple[str, int, float, bool]) -> dict[str, Any]:
    return judged(*case)


def _part_of(build: Any) -> str:
    return "a" if build.__module__ == fix_kinds_a.__name__ else "b"


def table(rows: list[dict[str, Any]]) -> str:
    """The figures by part and by kind, as Markdown."""
    failing = [row for row in rows if row["failing"]]
    lines = [
        "| cases | failing | repaired | cost | random order | cost | clipping alone |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    groups = [(f"part {part}", [r for r in failing if r["part"] == part]) for part in "ab"]
    names = sorted({row["kind"] for row in failing}, key=list(KINDS).index)
    groups += [("all", failing)]
    groups += [(f"`{name}`", [r for r in failing if r["kind"] == name]) for name in names]
    for label, group in groups:
        if group:
            lines.append(f"| {label} | {len(group)} | " + " | ".join(_figures(group)) + " |")
    harmless = [row for row in rows if not row["failing"]]
    if harmless:
        kept = sum(near_row(row) for row in harmless)
        told = ", ".join(sorted({row["kind"] for row in harmless}))
        lines += ["", f"{len(harmless)} more whose fault did no harm ({told}): {kept} end as well."]
    return "\n".join(lines)


def near_row(row: dict[str, Any]) -> bool:
    return row["fix_test"] is not None and row["fix_test"] >= row["good"] - MARGIN * abs(
        row["good"]
    )


def _figures(group: list[dict[str, Any]]) -> list[str]:
    def share(key: str) -> str:
        known = [row[key] for row in group if key in row]
        return f"{sum(known)} ({sum(known) / len(known):.0%})" if known else "-"

    def mean(key: str) -> str:
        known = [row[key] for row in group if key in row]
        return f"{sum(known) / len(known):.2f}" if known else "-"

    return [share("fix"), mean("fix_cost"), share("random"), mean("random_cost"), share("clip")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--budget", type=float, default=3.0)
    parser.add_argument(
        "--alone", action="store_true", help="leave out the random order, which costs most"
    )
    parser.add_argument("--part", choices=("a", "b"), help="one half of the kinds")
    parser.add_argument("--only", default="", help="kinds whose name contains this")
    parser.add_argument("--out", type=Path, help="a folder for rows.jsonl and table.md")
    args = parser.parse_args()
    names = [name for name in KINDS if args.only in name]
    names = [name for name in names if args.part in (None, _part_of(KINDS[name]))]
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    cases = [(name, seed, args.budget, args.alone) for name in names for seed in seeds]
    rows = []
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for row in pool.imap(_judged, cases):
            rows.append(row)
            if args.out is not None:
                args.out.mkdir(parents=True, exist_ok=True)
                with (args.out / "rows.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(rows))
    if args.out is not None:
        (args.out / "table.md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
