"""Runs that break as in public reports, in torch: are cause, line of code and cure named, and are they saved?

Each situation recreates what was behind a report whose end is known. It is trained bare; watched in
observe mode with the loss logged before the backward pass, after it, and with the step function
given; and protected. Its repaired twin has to train, and to be left alone, to the bit.

    python evaluation/reports.py --seeds 3                  # all
    python evaluation/reports.py --only left-padding --json

``situations_a.py`` to ``situations_d.py`` hold the situations; ``situation.py`` says what one is.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import importlib
import inspect
import json
import math
import statistics
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from situation import SITUATIONS, Run, Situation

import tamegrad

OBSERVED = ("before", "after", "step_fn")
"""Ways of watching: the loss logged before the backward pass or after it; the step function given."""

TAKES_STEP_FN = "step_fn" in inspect.signature(tamegrad.watch).parameters and (
    "batch" in inspect.signature(tamegrad.Guard.log).parameters
)


@dataclass
class Trained:
    """A run that has been trained."""

    run: Run
    start: float
    """Score before the first step."""
    end: float = math.nan
    losses: list[float] = field(default_factory=list)
    broken_at: int | None = None
    """The first step whose loss, or whose parameters after it, are not finite."""
    guard: tamegrad.Guard | None = None
    diagnosis: tamegrad.Diagnosis | None = None
    """As it stood at the end of the run."""
    stopped_at: int | None = None
    """The step at which the guard said that nothing more can be done."""

    def is_finite(self) -> bool:
        return self.broken_at is None and math.isfinite(self.end)

    def bits(self) -> bytes:
        """Parameters, buffers, state of the optimizer and of the random numbers."""
        tensors = [*self.run.model.state_dict().values(), torch.get_rng_state()]
        for state in self.run.optimizer.state.values():
            tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
        return b"".join(
            t.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() for t in tensors
        )


def score(run: Run) -> float:
    """What the model has learned, lower is better; leaves no trace in the run."""
    kept = copy.deepcopy(run.model.state_dict())
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if run.score is not None:
            value = float(run.score(run.model))
        else:
            value = statistics.fmean(float(run.step_fn(run.model, batch)) for batch in run.held)
    run.model.load_state_dict(kept)
    return value


def watched(run: Run, how: str) -> tamegrad.Guard:
    options: dict[str, Any] = {"scheduler": run.scheduler, "scaler": run.scaler, "strict": True}
    if how == "step_fn":
        options["step_fn"] = run.step_fn
    mode = "protect" if how == "protect" else "observe"
    return tamegrad.watch(run.model, run.optimizer, mode, **options)


def train(situation: Situation, seed: int, fixed: bool, how: str | None) -> Trained:
    """Builds and trains a run; ``how`` is None, ``protect`` or one of ``OBSERVED``."""
    torch.manual_seed(seed)
    run = situation.build(seed, fixed)
    done = Trained(run, score(run))
    torch.manual_seed(seed + 1)
    guard = done.guard = None if how is None else watched(run, how)
    parts: list[float] = []

    def backward(loss: torch.Tensor, batch: Any, scale: float = 1.0) -> None:
        parts.append(float(loss.detach()))
        if guard is not None and how != "after":
            guard.log(loss=loss, **({"batch": batch} if how == "step_fn" else {}))
        scaled = loss if run.scaler is None else run.scaler.scale(loss)
        (scaled if scale == 1.0 else scaled * scale).backward()
        if guard is not None and how == "after":
            guard.log(loss=loss)

    def update(batch: Any) -> None:
        run.optimizer.zero_grad()
        backward(run.step_fn(run.model, batch), batch)
        if run.scaler is None:
            run.optimizer.step()
        else:
            run.scaler.step(run.optimizer)
            run.scaler.update()

    for step, batch in enumerate(run.batches):
        parts.clear()
        if run.update is None:
            update(batch)
        else:
            run.update(batch, backward)
        if run.scheduler is not None:
            run.scheduler.step()
        done.losses.append(statistics.fmean(parts))
        if done.broken_at is None and not (math.isfinite(done.losses[-1]) and intact(run)):
            done.broken_at = step
        if how == "protect" and guard is not None and guard.should_stop:
            done.stopped_at = step
            break
    if guard is not None:
        done.diagnosis = guard.diagnosis()
    done.end = score(run)
    return done


def intact(run: Run) -> bool:
    return all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def harmed_at(bare: Trained, twin: Trained) -> int | None:
    """The first step that is not finite, or whose loss is far above all of the twin's; above its own
    before the fault, where the twin's are in another unit."""
    own = bare.run.score is not None
    level = 4 * max(map(abs, bare.losses[: max(bare.run.fault_at, 1)] if own else twin.losses))
    far = (step for step, loss in enumerate(bare.losses) if not abs(loss) <= level)
    steps = [step for step in (bare.broken_at, next(far, None)) if step is not None]
    return min(steps, default=None)


def share_learned(end: float, twin: Trained) -> float:
    """The share of the twin's descent that a run has made."""
    return (twin.start - end) / (twin.start - twin.end) if math.isfinite(end) else -math.inf


def faults_of_form(bare: Trained, twin: Trained) -> list[str]:
    """Why the situation proves nothing: it does not break, or its twin does not train."""
    found = []
    if bare.is_finite() and share_learned(bare.end, twin) > 0.5:
        found.append("the bare run does not break")
    before = bare.losses[: bare.run.fault_at]
    if not all(map(math.isfinite, before)) or (bare.broken_at or math.inf) < bare.run.fault_at:
        found.append("the bare run breaks before its fault")
    if not twin.is_finite():
        found.append(f"the twin is not finite (step {twin.broken_at})")
    if not twin.start - twin.end > 0.05 * abs(twin.start):
        found.append(f"the twin does not learn ({twin.start:.3g} to {twin.end:.3g})")
    return found


def judge(
    situation: Situation, diagnosis: tamegrad.Diagnosis, harmed: int | None
) -> dict[str, Any]:
    """What the diagnosis says, and what of it is right."""
    operation = getattr(diagnosis, "operation", None)
    said = None
    if operation is not None:
        names = ("name", "kind", "file", "line", "backward")
        said = {name: getattr(operation, name, None) for name in names}
    remedies = [remedy.name for remedy in diagnosis.remedies]
    here = said is not None and Path(str(said["file"])).name == situation.file
    return {
        "verdict": diagnosis.verdict,
        "onset": diagnosis.onset,
        "origin": diagnosis.origin,
        "place": diagnosis.place,
        "cause": diagnosis.cause,
        "cause_right": diagnosis.cause == situation.cause or diagnosis.cause in situation.also,
        "operation": said,
        "line_right": (here and said["line"] in situation.lines) if situation.lines else None,
        "remedies": remedies,
        "cure": any(is_among(remedy, situation.remedies) for remedy in remedies[:3]),
        "lead": None if None in (harmed, diagnosis.onset) else harmed - diagnosis.onset,
        "failure": diagnosis.failure,
    }


def is_among(remedy: str, wanted: frozenset[str]) -> bool:
    """``reinitialise-he`` is a ``reinitialise``."""
    return any(remedy == want or remedy.startswith(f"{want}-") for want in wanted)


def protected_end(protected: Trained, twin: Trained) -> str:
    """Saved: most of the twin's descent, or half of it and a score near the twin's."""
    learned = share_learned(protected.end, twin)
    if learned >= 0.8 or (learned >= 0.5 and protected.end <= 1.5 * twin.end):
        return "saved"
    return "lost" if protected.stopped_at is None else "stopped"


def evaluate(situation: Situation, seed: int) -> dict[str, Any]:
    """All runs of a situation with one seed."""
    began = time.monotonic()
    bare, twin = (train(situation, seed, fixed, None) for fixed in (False, True))
    # The random state belongs to the run that was trained last: see `Trained.bits`.
    twin_bits = twin.bits()
    quiet_twin = train(situation, seed, True, "before")
    same = quiet_twin.bits() == twin_bits
    alarm = quiet_twin.diagnosis
    bits = train(situation, seed, False, None).bits()
    harmed = harmed_at(bare, twin)
    row: dict[str, Any] = {
        "name": situation.name,
        "row": situation.row,
        "seed": seed,
        "want": {
            "cause": situation.cause,
            "also": sorted(situation.also),
            "lines": sorted(situation.lines),
            "remedies": sorted(situation.remedies),
        },
        "invalid": faults_of_form(bare, twin),
        "harmed_at": harmed,
        "fault_at": bare.run.fault_at,
        "start": twin.start,
        "twin": twin.end,
        "bare": bare.end,
        "modes": {},
        "twin_quiet": alarm is not None and alarm.onset is None,
        "twin_cause": alarm and alarm.cause,
        "twin_onset": alarm and alarm.onset,
    }
    for how in OBSERVED:
        if how == "step_fn" and not TAKES_STEP_FN:
            continue
        observed = train(situation, seed, False, how)
        same = same and observed.bits() == bits
        row["modes"][how] = judge(situation, observed.diagnosis, harmed)
    protected = train(situation, seed, False, "protect")
    row["protect"] = protected_end(protected, twin)
    row["protected"] = protected.end
    row["actions"] = len(protected.guard.actions()) if protected.guard else 0
    row["same"] = same
    row["seconds"] = time.monotonic() - began
    return row


def attempt(situation: Situation, seed: int) -> dict[str, Any]:
    try:
        return evaluate(situation, seed)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        reason = f"{type(error).__name__}: {error}"
        return {"name": situation.name, "row": situation.row, "seed": seed, "error": reason}


def load(half: str) -> None:
    """Imports the situations of one half or of all that exist."""
    for part in "abcd" if half == "all" else half:
        try:
            importlib.import_module(f"situations_{part}")
        except ModuleNotFoundError as error:
            if error.name != f"situations_{part}" or half != "all":
                raise


def finite(value: Any) -> Any:
    """The value with NaN and Inf as strings, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- the table -----------------------------------------------------------------------------------


def tally(values: list[Any]) -> str:
    """``2/3``: how many are true, of those that are not None."""
    known = [value for value in values if value is not None]
    return f"{sum(map(bool, known))}/{len(known)}" if known else "-"


def percent(values: list[Any]) -> str:
    known = [value for value in values if value is not None]
    return f"{100 * statistics.fmean(map(bool, known)):3.0f}% of {len(known)}" if known else "-"


def of_mode(rows: list[dict], how: str, key: str) -> list[Any]:
    return [row["modes"][how][key] for row in rows if how in row["modes"]]


def said(rows: list[dict], how: str) -> str:
    """The causes that were named, most frequent first."""
    causes = [cause or "none" for cause in of_mode(rows, how, "cause")]
    return ", ".join(sorted(set(causes), key=lambda cause: (-causes.count(cause), cause)))


def print_table(rows: list[dict]) -> None:
    names = list(dict.fromkeys(row["name"] for row in rows))
    head = ("situation", "row", "cause", "line", "cure", "lead", "quiet", "same", "protect", "said")
    form = "{:24} {:14} {:11} {:11} {:11} {:>6} {:5} {:5} {:22} {}"
    print(
        "cause, line, cure: right with the loss logged before / after the backward pass / step_fn"
    )
    print(form.format(*head))
    for name in names:
        part = [row for row in rows if row["name"] == name and "error" not in row]
        errors = [row["error"] for row in rows if row["name"] == name and "error" in row]
        notes = [*errors, *dict.fromkeys(why for row in part for why in row["invalid"])]
        if part:
            modes = [how for how in OBSERVED if how in part[0]["modes"]]
            leads = [lead for lead in of_mode(part, "before", "lead") if lead is not None]
            ends = [row["protect"] for row in part]
            print(
                form.format(
                    name,
                    part[0]["row"],
                    *(
                        " ".join(tally(of_mode(part, how, key)) for how in modes)
                        for key in ("cause_right", "line_right", "cure")
                    ),
                    f"{statistics.median(leads):.0f}" if leads else "-",
                    tally([row["twin_quiet"] for row in part]),
                    tally([row["same"] for row in part]),
                    ", ".join(f"{end} {ends.count(end)}" for end in dict.fromkeys(ends)),
                    f"{said(part, 'before')} (want {part[0]['want']['cause']})",
                )
            )
        for note in dict.fromkeys(notes):
            print(f"{'':24} invalid: {note}" if part else f"{name:24} error: {note}")


def print_summary(rows: list[dict]) -> None:
    failed = [row for row in rows if "error" in row]
    valid = [row for row in rows if "error" not in row and not row["invalid"]]
    names = {row["name"] for row in valid}
    print(
        f"\n{len(valid)} valid runs of {len(names)} situations, "
        f"{len(rows) - len(valid) - len(failed)} invalid, {len(failed)} with an error"
    )
    for how in OBSERVED:
        if how == "step_fn" and not TAKES_STEP_FN:
            print(f"{how:8} not offered by this version")
            continue
        print(
            f"{how:8} cause {percent(of_mode(valid, how, 'cause_right'))}, "
            f"line {percent(of_mode(valid, how, 'line_right'))}, "
            f"cure {percent(of_mode(valid, how, 'cure'))}, "
            f"alarm {percent([onset is not None for onset in of_mode(valid, how, 'onset')])}"
        )
    early = [
        onset is not None and onset < row["fault_at"]
        for row in valid
        for onset in of_mode([row], "before", "onset")
    ]
    print(
        f"alarm before the fault {sum(early)} of {len(early)}, "
        f"twins quiet {percent([row['twin_quiet'] for row in valid])}, "
        f"same bits {percent([row['same'] for row in valid])}"
    )
    ends = [row["protect"] for row in valid]
    print("protect:", ", ".join(f"{end} {ends.count(end)}" for end in ("saved", "stopped", "lost")))
    for group in dict.fromkeys(row["row"] for row in valid):
        part = [row for row in valid if row["row"] == group]
        print(
            f"  {group:16} {len({row['name'] for row in part}):2} situations  "
            f"cause {percent(of_mode(part, 'before', 'cause_right')):12} "
            f"line {percent(of_mode(part, 'before', 'line_right')):12} "
            f"cure {percent(of_mode(part, 'before', 'cure')):12} "
            f"saved {percent([row['protect'] == 'saved' for row in part])}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--half", choices=("a", "b", "c", "d", "all"), default="all")
    parser.add_argument("--only", metavar="NAME", action="append", help="may be given again")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print each run as a line of JSON, and the table to stderr",
    )
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        load(given.half)
    except ModuleNotFoundError as error:
        parser.error(f"--half: got {given.half}, but {error.name}.py does not exist")
    chosen = [s for s in SITUATIONS if not given.only or s.name in given.only]
    unknown = set(given.only or ()) - {s.name for s in chosen}
    if unknown:
        names = ", ".join(s.name for s in SITUATIONS)
        parser.error(f"--only: got {', '.join(sorted(unknown))}, want one of {names}")
    rows = []
    for situation in chosen:
        for seed in range(given.seeds):
            rows.append(attempt(situation, seed))
            row = rows[-1]
            state = row.get("error") or ("; ".join(row["invalid"]) if row["invalid"] else "valid")
            print(
                f"{situation.name} seed {seed}: {state}, {row.get('seconds', 0):.1f} s",
                file=sys.stderr,
                flush=True,
            )
            if given.json:
                print(json.dumps(finite(row)), flush=True)
    with contextlib.redirect_stdout(sys.stderr if given.json else sys.stdout):
        print_table(rows)
        print_summary(rows)


if __name__ == "__main__":
    main()
