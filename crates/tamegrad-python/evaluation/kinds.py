"""Kinds of runs that fail and of runs that are healthy, in torch: are they told apart in time, and saved?

A failing run is trained bare, with ``clip_grad_norm_(1.0)`` alone, observed, protected, and protected
with ``guard.clip_(1.0)``; its undisturbed twin says what could have been learned. Healthy runs are
trained bare and protected, and have to be left alone, to the bit.

    python evaluation/kinds.py --half a --seeds 5           # the table of one half
    python evaluation/kinds.py --only rate-jump --json      # each run as a line of JSON
    python evaluation/kinds.py --check                      # without tamegrad: are the cases good?

``kinds_a.py`` and ``kinds_b.py`` hold the kinds; ``kind.py`` says what one is, and
``kind_models.py`` has the models and what they learn.

What the table counts, of the runs that are harmed:

- **harmed**: the bare run ends with less than 0.7 of what its twin has learned on held-out data,
  above the best constant answer.
- **saved**: the run ends with at least 0.8 of it.
- **in time**: the first alarm, as it is raised, comes at the fault or later, and not after the harm:
  the step from which on the loss (its logarithm, for squares) is one nat above its level before the
  fault. If the fault is there from the start, above the twin's; an alarm within the first tenth of
  the run is in time as well.
- **lead**: steps from the alarm to the harm, in the median.
- **stopped**: not saved, but ``guard.should_stop`` ended the protected run before three quarters of
  its steps after the fault, with a diagnosis.
- **layer**: the origin is the layer that is to blame, where one is.
- **healthy**: the verdict ``healthy`` on a harmed run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import multiprocessing
import statistics
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from kind import KINDS, Kind, Run

HOWS = (None, "clip", "observe", "protect", "protect-clip")
"""Ways of training: bare, clipped by torch, watched, protected, protected and clipped by the guard."""
LIMIT = 1.0
"""The largest norm of the gradients, where they are clipped."""


@dataclass
class Trained:
    """A run that has been trained."""

    run: Run
    learned: float = 0.0
    """What was learned on held-out data: 0 as by a constant answer, 1 is all."""
    losses: list[float] = field(default_factory=list)
    guards: list[Any] = field(default_factory=list)
    alarm: int | None = None
    """The step at which the first alarm was raised."""
    stopped: int | None = None
    """The step at which the guard said that nothing more can be done."""
    seconds: float = 0.0

    def bits(self) -> bytes:
        """Parameters, buffers and the state of the optimizers."""
        tensors: list[torch.Tensor] = []
        for model, optimizer in self.run.parts:
            tensors += model.state_dict().values()
            for state in optimizer.state.values():
                tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
        return b"".join(
            t.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for t in tensors
        )


def score(run: Run) -> float:
    """What the model has learned; leaves no trace in the random numbers."""
    run.model.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        value = float((run.score or run.task.score)())
    run.model.train()
    return value if math.isfinite(value) else 0.0


def train(kind: Kind, start: tuple[str, str, int], broken: bool, how: str | None) -> Trained:
    """Builds and trains a run; ``how`` is one of ``HOWS``."""
    began = time.monotonic()
    run = kind.run(*start, broken)
    done = Trained(run)
    guards, at = done.guards, [0]
    torch.manual_seed(100 + start[2])

    def found(finding: Any) -> None:
        if finding.severity == "alarm" and done.alarm is None:
            done.alarm = at[0]

    if how in ("observe", "protect", "protect-clip"):
        import tamegrad

        mode = "observe" if how == "observe" else "protect"
        for part, (model, optimizer) in enumerate(run.parts):
            first = {"scheduler": run.scheduler, "scaler": run.scaler} if part == 0 else {}
            guard = tamegrad.watch(model, optimizer, mode, on_finding=found, strict=True, **first)
            guards.append(guard)
    losses: list[float] = []

    def backward(loss: torch.Tensor, scale: float = 1.0, part: int = 0) -> None:
        if part == 0:
            losses.append(float(loss.detach()))
        if guards:
            guards[part].log(loss=loss)
        scaled = loss if run.scaler is None else run.scaler.scale(loss)
        (scaled if scale == 1.0 else scaled * scale).backward()

    def take_step(closure: Callable | None = None, part: int = 0) -> None:
        model, optimizer = run.parts[part]
        if closure is not None:
            optimizer.step(closure)
            return
        limit = run.clip or (LIMIT if how in ("clip", "protect-clip") else None)
        if limit is not None and how == "protect-clip" and run.clip is None:
            guards[part].clip_(limit)
        elif limit is not None:
            if run.scaler is not None:
                run.scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        if run.scaler is None:
            optimizer.step()
        else:
            run.scaler.step(optimizer)
            run.scaler.update()

    for step in range(run.steps):
        at[0] = step
        losses.clear()
        for change in run.before:
            change(step)
        if run.update is not None:
            run.update(step, backward, take_step)
        else:
            loss = run.loss(run.batch(step))
            run.optimizer.zero_grad()
            backward(loss)
            take_step()
        if run.scheduler is not None:
            run.scheduler.step()
        for change in run.after:
            change(step)
        done.losses.append(statistics.fmean(losses))
        if how in ("protect", "protect-clip") and any(guard.should_stop for guard in guards):
            done.stopped = step
            break
    done.learned = score(run)
    done.seconds = time.monotonic() - began
    return done


def nats(run: Run, losses: list[float]) -> list[float]:
    if run.loss_is_log:
        return losses
    return [math.log(max(loss, 1e-12)) if loss == loss else loss for loss in losses]


def harm_step(bare: Trained, twin: Trained, fault: int) -> int | None:
    """The step from which on the loss is one nat up, or not finite; ``None`` if it never is."""
    losses, calm = nats(bare.run, bare.losses), nats(twin.run, twin.losses)
    for step in range(fault, len(losses)):
        if fault >= 20:
            level = statistics.median(losses[fault - 20 : fault])
        else:
            level = max(calm[max(step - 5, 0) : step + 5])
        coming = losses[step : step + 5]
        if sum(not loss < level + 1.0 for loss in coming) * 2 > len(coming) and not (
            losses[step] < level + 1.0
        ):
            return step
    return None


def told(trained: Trained) -> dict[str, Any]:
    """What the diagnosis says: of the guard with the first alarm, if there are several."""
    diagnoses = [guard.diagnosis() for guard in trained.guards]
    diagnosis = min(diagnoses, key=lambda d: math.inf if d.onset is None else d.onset)
    return {
        "alarm": trained.alarm,
        "onset": diagnosis.onset,
        "verdict": diagnosis.verdict,
        "cause": diagnosis.cause,
        "origin": diagnosis.origin,
        "place": diagnosis.place,
        "signs": list(dict.fromkeys(f.sign for f in diagnosis.findings if f.severity == "alarm")),
        "remedies": [remedy.name for remedy in diagnosis.remedies[:3]],
    }


def is_layer(origin: str | None, layer: str) -> bool:
    """Whether the origin is the layer, a tensor of it, or what is inside it."""
    name = (origin or "").split("@")[0]
    return name == layer or name.startswith(f"{layer}.")


def ending(run: Trained, twin: Trained, fault: int) -> dict[str, Any]:
    """How a protected run ends."""
    left = run.run.steps - fault
    saved = run.learned >= 0.8 * twin.learned
    early = run.stopped is not None and run.stopped < fault + 0.75 * left
    acts = [action for guard in run.guards for action in guard.actions()]
    return {
        "learned": run.learned,
        "saved": saved,
        "stopped": not saved and early and run.alarm is not None,
        "stopped_at": run.stopped,
        "actions": len(acts),
    }


def failing(kind: Kind, start: tuple[str, str, int], check: bool) -> dict[str, Any]:
    twin, bare = train(kind, start, False, None), train(kind, start, True, None)
    fault = kind.fault
    harm = harm_step(bare, twin, fault)
    row: dict[str, Any] = {
        "twin": twin.learned,
        "bare": bare.learned,
        "harmed": bare.learned < 0.7 * twin.learned,
        "learns": twin.learned > 0.2,
        "fault": fault,
        "harm": harm,
        "seconds": [twin.seconds, bare.seconds],
        "layer": bare.run.layer,
    }
    if check:
        return row
    clipped = train(kind, start, True, "clip")
    row["clip"] = {"learned": clipped.learned, "saved": clipped.learned >= 0.8 * twin.learned}
    observed = train(kind, start, True, "observe")
    row["observe"] = said = told(observed)
    row["same"] = observed.bits() == bare.bits()
    # A run that is bad from its first step has had no calm to be compared with.
    grace = 0 if fault >= 20 else bare.run.steps // 10
    deadline = max(bare.run.steps if harm is None else harm, fault + grace)
    alarm = observed.alarm
    row["early"] = alarm is not None and alarm < fault
    row["alarmed"] = alarm is not None and alarm >= fault
    row["in_time"] = alarm is not None and fault <= alarm <= deadline
    row["lead"] = None if None in (alarm, harm) or row["early"] else harm - alarm
    row["named"] = None if bare.run.layer is None else is_layer(said["origin"], bare.run.layer)
    for how in ("protect", "protect-clip"):
        row[how] = ending(train(kind, start, True, how), twin, fault)
    return row


def calm(kind: Kind, start: tuple[str, str, int], check: bool) -> dict[str, Any]:
    bare = train(kind, start, False, None)
    row = {"bare": bare.learned, "learns": bare.learned > 0.2, "seconds": [bare.seconds]}
    if check:
        return row
    guarded = train(kind, start, False, "protect")
    return {
        **row,
        "protect": ending(guarded, bare, 0),
        "observe": told(guarded),
        "accused": guarded.alarm is not None or any(g.diagnosis().onset for g in guarded.guards),
        "same": guarded.bits() == bare.bits(),
    }


def evaluate(job: tuple[str, str, str, int, bool, str]) -> dict[str, Any]:
    name, model, optimizer, seed, check, half = job
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    load(half)
    kind = next(kind for kind in KINDS if kind.name == name)
    row = {
        "kind": name,
        "half": kind.half,
        "fails": kind.fails,
        "model": model,
        "optimizer": optimizer,
        "seed": seed,
    }
    try:
        judge = failing if kind.fails else calm
        return {**row, **judge(kind, (model, optimizer, seed), check)}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return {**row, "error": f"{type(error).__name__}: {error}"}


def load(half: str) -> None:
    """Imports the kinds of one half or of all."""
    for part in "ab" if half == "all" else half:
        importlib.import_module(f"kinds_{part}")


# --- the table -----------------------------------------------------------------------------------


def percent(values: list[Any]) -> str:
    """The share that is true, of those that are not None."""
    known = [bool(value) for value in values if value is not None]
    return f"{100 * statistics.fmean(known):.0f}%" if known else "-"


def lead(rows: list[dict]) -> str:
    leads = [row["lead"] for row in rows if row["lead"] is not None]
    return f"{statistics.median(leads):.0f}" if leads else "-"


def most(values: list[Any]) -> str:
    """What occurs, most frequent first."""
    counts = {value: values.count(value) for value in values}
    return ", ".join(f"{value} {n}" for value, n in sorted(counts.items(), key=lambda c: -c[1])[:3])


COLUMNS: dict[str, Callable[[list[dict]], str]] = {
    "in time": lambda rows: percent([row["in_time"] for row in rows]),
    "ever": lambda rows: percent([row["alarmed"] for row in rows]),
    "early": lambda rows: percent([row["early"] for row in rows]),
    "lead": lead,
    "layer": lambda rows: percent([row["named"] for row in rows]),
    "healthy": lambda rows: percent([row["observe"]["verdict"] == "healthy" for row in rows]),
    "protect": lambda rows: percent([row["protect"]["saved"] for row in rows]),
    "clip": lambda rows: percent([row["clip"]["saved"] for row in rows]),
    "both": lambda rows: percent([row["protect-clip"]["saved"] for row in rows]),
    "stopped": lambda rows: percent(
        [row["protect"]["stopped"] for row in rows if not row["protect"]["saved"]]
    ),
}
"""What is told of the harmed runs of a kind."""


def by_kind(rows: list[dict]) -> dict[str, list[dict]]:
    return {
        name: [row for row in rows if row["kind"] == name]
        for name in dict.fromkeys(row["kind"] for row in rows)
    }


def print_failing(rows: list[dict]) -> None:
    form = "{:30} {:>5} {:>6}" + "".join(f" {{:>{max(len(c), 4)}}}" for c in COLUMNS) + "  {}"
    print(form.format("failing", "runs", "harmed", *COLUMNS, "verdicts; causes"))
    for name, part in {**by_kind(rows), "all": rows}.items():
        harmed = [row for row in part if row["harmed"]]
        if not harmed:
            print(f"{name:30} {len(part):5}      0")
            continue
        said = "" if name == "all" else most([row["observe"]["verdict"] for row in harmed])
        why = "" if name == "all" else "; " + most([str(r["observe"]["cause"]) for r in harmed])
        cells = [tell(harmed) for tell in COLUMNS.values()]
        print(form.format(name, len(part), len(harmed), *cells, said + why))
    kinds = [part for part in by_kind([row for row in rows if row["harmed"]]).values()]
    worse = [
        part[0]["kind"]
        for part in kinds
        if sum(row["protect"]["saved"] for row in part) < sum(row["clip"]["saved"] for row in part)
    ]
    print(f"kinds on which clipping alone saves more than protect: {', '.join(worse) or 'none'}")
    print(f"observed runs with the bits of the bare run: {percent([row['same'] for row in rows])}")


def print_healthy(rows: list[dict]) -> None:
    form = "{:30} {:>5} {:>8} {:>6} {:>10} {:>8}  {}"
    print(form.format("healthy", "runs", "accused", "acted", "same bits", "stopped", "signs"))
    for name, part in {**by_kind(rows), "all": rows}.items():
        signs = [sign for row in part for sign in row["observe"]["signs"]]
        print(
            form.format(
                name,
                len(part),
                sum(row["accused"] for row in part),
                sum(row["protect"]["actions"] > 0 for row in part),
                percent([row["same"] for row in part]),
                sum(row["protect"]["stopped_at"] is not None for row in part),
                most(signs),
            )
        )


def print_check(rows: list[dict]) -> None:
    """What is wrong with cases: a twin that does not learn, a fault that does no harm."""
    for part in by_kind(rows).values():
        for model, optimizer in dict.fromkeys((row["model"], row["optimizer"]) for row in part):
            own = [row for row in part if (row["model"], row["optimizer"]) == (model, optimizer)]
            bad = not all(row["learns"] and row.get("harmed", True) for row in own)
            learned = " ".join(
                f"{row.get('twin', row['bare']):.2f}"
                + (f">{row['bare']:.2f}@{row['harm']}" if row["fails"] else "")
                for row in own
            )
            seconds = max(second for row in own for second in row["seconds"])
            print(
                f"{'BAD ' if bad else ''}{own[0]['kind']:30} {model}/{optimizer:10} "
                f"{seconds:4.1f}s  {learned}"
            )


def print_tables(rows: list[dict], check: bool) -> None:
    failed = [row for row in rows if "error" in row]
    rows = [row for row in rows if "error" not in row]
    for half in sorted({row["half"] for row in rows}):
        part = [row for row in rows if row["half"] == half]
        print(f"--- half {half}")
        if check:
            print_check(part)
            continue
        if bad := [row for row in part if row["fails"]]:
            print_failing(bad)
        if good := [row for row in part if not row["fails"]]:
            print_healthy(good)
    for row in failed:
        print(
            f"error: {row['kind']} {row['model']}/{row['optimizer']} {row['seed']} {row['error']}"
        )


def finite(value: Any) -> Any:
    """The value with NaN and Inf as strings, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--half", choices=("a", "b", "all"), default="all")
    parser.add_argument("--only", metavar="KIND", action="append", help="may be given again")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write each run as a line of JSON"
    )
    parser.add_argument("--check", action="store_true", help="train bare runs and twins alone")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--read", type=Path, metavar="FILE", help="print the table of such a file")
    given = parser.parse_args()
    if given.read:
        print_tables([json.loads(line) for line in given.read.open()], given.check)
        return
    load(given.half)
    unknown = set(given.only or ()) - {kind.name for kind in KINDS}
    if unknown:
        parser.error(f"--only: got {', '.join(sorted(unknown))}, want names of kinds in this half")
    jobs = [
        (kind.name, model, optimizer, seed, given.check, given.half)
        for seed in range(given.seeds)
        for kind in KINDS
        if not given.only or kind.name in given.only
        for model, optimizer in kind.settings
    ]
    # Threads of torch do not live through a fork.
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        rows = []
        for row in pool.imap(evaluate, jobs, chunksize=1):
            rows.append(row)
            if given.json:
                with given.json.open("a" if len(rows) > 1 else "w") as file:
                    file.write(json.dumps(finite(row)) + "\n")
            print(f"\r{len(rows)}/{len(jobs)}", end="", file=sys.stderr, flush=True)
    print_tables(rows, given.check)
    sys.exit(2 if any("error" in row for row in rows) else 0)


if __name__ == "__main__":
    main()
