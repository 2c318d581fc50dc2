"""The search: the training as given, short trials of what its diagnosis proposes, and one to the end."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import changes
from .change import Case, Change
from .journal import Journal
from .outcome import EXPLODING, HEALTHY, MARGIN, Outcome, Task
from .pool import Pool
from .result import Advice, Fix
from .run import Objective

WAVE = 3
"""Candidates that are tried before the first decision. A number of its own, so that the result does not
depend on the number of workers."""
SHORT_MIN = 0.1
"""A short trial is at least this part of the training."""
SHORT_OF_ONSET = 2.0
"""It is this many times as long as the training as given was up to its alarm."""
SHORT_AFTER = 40
"""It has this many steps more, in which an explosion shows."""
SHORT_MAX = 0.5
"""Where it would be longer than this part, candidates are trained to the end at once."""
SEED_TRIALS = 2
"""Candidates that are tried with another seed, if the first explodes with it."""
CLIMBS = 2
"""Milder numbers that are tried of the best change."""
CAME_THROUGH = ("recovered", "not-learning", *HEALTHY)
"""Verdicts of a training as given that may be as good as any other."""


@dataclass(frozen=True)
class Options:
    """What a search is told."""

    budget: float
    sign: float
    seed: int
    order: Callable[[list[Change]], list[Change]] | None = None
    """Another order of the candidates; the evaluation compares with a random one."""


def fix(
    objective: Objective,
    budget: float = 3.0,
    *,
    direction: str = "maximize",
    seed: int = 0,
    workers: int = 1,
    folder: str | os.PathLike[str] | None = None,
    on_trial: Callable[[Outcome], None] | None = None,
) -> Fix:
    """Searches for the smallest change that keeps a training from exploding.

    ``objective(trial)`` is the training: it builds model, optimizer and data, passes them through the
    methods of :class:`tamegrad.Trial`, and trains. It is run unchanged first. If that run is healthy, it
    is left alone, and the search has cost one training. Otherwise the remedies of its diagnosis are tried
    in short runs, singly and then in pairs, and the mildest one whose validation metric is within 2% of
    the best is trained to the end::

        result = tamegrad.fix(objective, budget=3.0)
        print(result)
        print(result.best.code("pytorch"))
        result.save("runs/fix")

    ``budget`` limits the cost, in multiples of the training as given, which counts as well. ``direction``
    says whether a good metric is high (``"maximize"``) or low (``"minimize"``). ``seed`` is the seed of
    the first run; torch, NumPy and ``random`` are seeded for each trial. ``workers`` processes run trials
    in parallel; their number does not change the result, but the objective must then be a function of a
    module. With ``folder``, every trial is written there when it ends, and the same call continues after
    a kill. ``on_trial`` is called with each :class:`Outcome <tamegrad.Outcome>`.

    Ctrl-C ends the search: the result says what is known so far. An exception in the objective ends only
    its trial, except in the unchanged run: there it is raised, since nothing is left to compare with.

    Raises ``ValueError`` if an option is out of its domain, the objective does not call
    ``trial.prepare``, or the folder holds another search.
    """
    if not budget >= 1.0:
        raise ValueError(f"budget: got {budget!r}, want at least 1.0, the training as given")
    if direction not in ("maximize", "minimize"):
        raise ValueError(f"direction: got {direction!r}, want 'maximize' or 'minimize'")
    if workers < 1:
        raise ValueError(f"workers: got {workers!r}, want at least 1")
    options = Options(float(budget), 1.0 if direction == "maximize" else -1.0, seed)
    return search(objective, options, workers=workers, folder=folder, on_trial=on_trial)


def search(
    objective: Objective,
    options: Options,
    *,
    workers: int = 1,
    folder: str | os.PathLike[str] | None = None,
    on_trial: Callable[[Outcome], None] | None = None,
) -> Fix:
    """The search with all its options."""
    journal = None if folder is None else Journal(folder, objective)
    pool = Pool(objective, workers)
    found = Fix(options.budget, options.sign)
    try:
        Search(pool, journal, options, found, on_trial).run()
    except KeyboardInterrupt:
        found.is_interrupted = True
    finally:
        pool.close()
        if journal is not None:
            journal.close()
    return found


class Search:
    """The steps of a search, which fill a :class:`Fix`."""

    def __init__(
        self,
        pool: Pool,
        journal: Journal | None,
        options: Options,
        found: Fix,
        on_trial: Callable[[Outcome], None] | None,
    ) -> None:
        self._pool, self._journal, self._options, self._found = pool, journal, options, found
        self._on_trial = on_trial
        self._total: int | None = None
        self._shorten = "stop"
        self._part = 1.0

    def run(self) -> None:
        """Runs the search."""
        given = self._run([Task("as given", seed=self._options.seed)])[0]
        self._found.given = given
        if given.status == "failed" and given.verdict not in EXPLODING:
            raise ObjectiveError(given.error or "")
        if given.verdict in HEALTHY and not given.is_constant:
            self._found.best = given
            return
        self._total = given.total
        self._shorten = given.facts["shorten"]
        self._part = self._short_part(given)
        candidates = self._candidates(given)
        survivors = self._short_trials(candidates)
        self._to_the_end(survivors)

    # --- what there is to try --------------------------------------------------------------------

    def _candidates(self, given: Outcome) -> list[Change]:
        """The changes to try, in order; the rest becomes advice."""
        case, advised = case_of(given)
        found = changes.propose(case)
        self._found.advice += advised
        possible = []
        for change in found:
            knob = changes.missing_knob(change, case)
            if knob is None:
                possible.append(change)
            else:
                why = f"to have it tried, use trial.{knob}(...) in the objective"
                self._found.advice.append(Advice(change.label, change.text, why, dict(change.code)))
        order = self._options.order or spread
        return order(possible)

    def _short_part(self, given: Outcome) -> float:
        """How much of the training a short trial is."""
        if not self._total:
            return 1.0
        steps = SHORT_OF_ONSET * (given.onset or 0) + SHORT_AFTER
        part = max(SHORT_MIN, steps / self._total)
        return part if part <= SHORT_MAX else 1.0

    # --- short trials -----------------------------------------------------------------------------

    def _short_trials(self, candidates: list[Change]) -> list[Outcome]:
        """Those of the candidates that do well in a short trial, the most promising first."""
        seed = self._options.seed
        stage = "short" if self._part < 1.0 else "full"
        tried: list[Outcome] = []
        for wave in self._waves(candidates, tried):
            tasks = [self._task(wanted, stage, seed, self._part) for wanted in wave]
            tried += self._run(tasks)
            if stage == "short" and (best := self._ranked(tried)):
                tried += self._milder(best[0], tried)
            if any(outcome.is_healthy and outcome.has_learned for outcome in tried):
                break
        ranked = self._ranked(tried)
        return self._with_other_seed(ranked) if stage == "short" else ranked

    def _milder(self, best: Outcome, tried: list[Outcome]) -> list[Outcome]:
        """Trials of the best change with milder numbers, as long as it has learned nothing and they lower
        the loss further: a rate that is too low is healthy as well."""
        found: list[Outcome] = []
        while len(found) < CLIMBS and not best.has_learned and self._affordable(self._part):
            change = changes.milder(best.changes[0]) if len(best.changes) == 1 else None
            if change is None or any(outcome.changes == (change,) for outcome in tried):
                break
            task = self._task((change,), "short", self._options.seed, self._part)
            found += self._run([task])
            if not found[-1].is_healthy or not (found[-1].loss or 0.0) < (best.loss or 0.0):
                break
            best = found[-1]
        return found

    def _affordable(self, part: float) -> int:
        """How many trials of a part of the training there is budget for, with one to the end."""
        reserved = 1.0 if part < 1.0 else 0.0
        room = self._options.budget - self._found.cost - reserved
        return max(0, int(room / part + 1e-9))

    def _waves(
        self, candidates: list[Change], tried: list[Outcome]
    ) -> Iterator[list[tuple[Change, ...]]]:
        """Candidates by waves, as far as the budget goes: singly, then in pairs."""
        size = WAVE if self._part < 1.0 else 1
        singles = [(change,) for change in candidates]
        for wanted in (singles, None):
            # Pairs are made when the singles are over: from those that came furthest.
            queue = wanted if wanted is not None else self._pairs(tried)
            for start in range(0, len(queue), size):
                wave = queue[start : start + size]
                affordable = self._affordable(self._part)
                if not affordable:
                    self._found.is_exhausted = True
                    return
                yield wave[:affordable]

    def _pairs(self, tried: list[Outcome]) -> list[tuple[Change, ...]]:
        ran = [o for o in tried if len(o.changes) == 1 and o.status in ("finished", "stopped")]
        ran.sort(key=lambda o: (o.verdict in EXPLODING, -(o.onset or 0), o.loss or float("inf")))
        pairs = itertools.combinations([outcome.changes[0] for outcome in ran[:4]], 2)
        return [
            tuple(sorted(pair, key=changes.force))
            for pair in pairs
            if changes.family(pair[0]) != changes.family(pair[1])
        ]

    def _with_other_seed(self, good: list[Outcome]) -> list[Outcome]:
        """The candidates, without those at the front that explode with another seed."""
        for place, outcome in enumerate(good[:SEED_TRIALS]):
            if not self._affordable(self._part):
                return good
            task = self._task(outcome.changes, "seed", self._options.seed + 1, self._part)
            if self._run([task])[0].is_usable:
                return good[place:]
        return good[SEED_TRIALS:]

    # --- choosing ---------------------------------------------------------------------------------

    def _ranked(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Those that did well: healthy ones that have learned something, the mildest of those near the
        best first; then those that have not, by their loss; then those that recovered."""
        healthy = [outcome for outcome in outcomes if outcome.is_healthy]
        learned = [outcome for outcome in healthy if outcome.has_learned]
        slow = [outcome for outcome in healthy if not outcome.has_learned]
        slow.sort(key=lambda o: math.inf if o.loss is None or math.isnan(o.loss) else o.loss)
        recovered = [o for o in outcomes if o.is_usable and not o.is_healthy]
        return [*self._mildest_first(learned), *slow, *self._mildest_first(recovered)]

    def _mildest_first(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        sign = self._options.sign
        best = max((outcome.score(sign) for outcome in outcomes), default=0.0)
        near = [o for o in outcomes if o.score(sign) >= best - self._margin(best)]
        near.sort(key=lambda outcome: changes.strength(outcome.changes))
        rest = [outcome for outcome in outcomes if outcome not in near]
        return [*near, *sorted(rest, key=lambda outcome: -outcome.score(sign))]

    @staticmethod
    def _margin(best: float) -> float:
        return MARGIN * abs(best)

    def _to_the_end(self, survivors: list[Outcome]) -> None:
        """Trains with the survivors, one after another, until one holds to the end."""
        found, sign = self._found, self._options.sign
        ended = [outcome for outcome in survivors if outcome.stage == "full"]
        held = list(ended)
        left = [outcome for outcome in survivors if outcome.stage != "full"]
        while left and not held:
            if self._options.budget - found.cost < 1.0 - 1e-9:
                found.is_exhausted = True
                break
            survivor = left.pop(0)
            task = self._task(survivor.changes, "full", self._options.seed, 1.0)
            outcome = self._run([task])[0]
            ended.append(outcome)
            least = survivor.score(sign) - self._margin(survivor.score(sign))
            if outcome.is_healthy and outcome.score(sign) >= least:
                held.append(outcome)
        # What did not hold is no fix as long as something else has not been trained to the end.
        ranked = self._ranked(held) or left or self._ranked(ended)
        found.best = next(iter(ranked), None)
        given = found.given
        if given is not None and given.status == "finished" and given.verdict in CAME_THROUGH:
            # It explodes no more at its end, or never did: only what is better takes its place.
            score = given.score(sign)
            if found.best is None or found.best.score(sign) <= score + self._margin(score):
                found.best = given

    # --- running ----------------------------------------------------------------------------------

    def _task(self, wanted: tuple[Change, ...], stage: str, seed: int, part: float) -> Task:
        label = " + ".join(change.label for change in wanted)
        return Task(label, wanted, seed, part, stage, self._total, self._shorten)

    def _run(self, tasks: list[Task]) -> list[Outcome]:
        """Runs trials, but for those that the journal knows, and takes them in in the order of the tasks."""
        known = {} if self._journal is None else self._journal.earlier
        outcomes = {place: known[t.key] for place, t in enumerate(tasks) if t.key in known}
        places = [place for place in range(len(tasks)) if place not in outcomes]
        try:
            for at, outcome in self._pool.run([tasks[place] for place in places]):
                outcomes[places[at]] = outcome
                if self._journal is not None:
                    self._journal.add(outcome)
                if self._on_trial is not None:
                    self._on_trial(outcome)
        finally:
            ordered = [outcomes[place] for place in sorted(outcomes)]
            self._found.trials += ordered
        return ordered


class ObjectiveError(RuntimeError):
    """The objective raised an exception in the training as given."""


def spread(candidates: list[Change]) -> list[Change]:
    """The candidates so that each family comes once before any comes again: those that treat the
    cause first, as they come."""
    ordered: list[Change] = []
    for treats in (True, False):
        left = [change for change in candidates if change.treats_cause is treats]
        while left:
            seen: set[str] = set()
            round_, rest = [], []
            for change in left:
                family = changes.family(change)
                (rest if family in seen else round_).append(change)
                seen.add(family)
            ordered += round_
            left = rest
    return ordered


def case_of(given: Outcome) -> tuple[Case, list[Advice]]:
    """What the unchanged training has shown, and what its diagnosis proposes that no trial can do."""
    facts = given.facts
    proposed, advised = [], []
    for told, remedy in zip(facts["diagnosis"]["remedies"], facts["remedies"], strict=True):
        parameters: dict[str, Any] = dict(told["change"])
        kind = parameters.pop("kind")
        change = Change(
            kind,
            parameters,
            remedy["label"],
            remedy["text"],
            remedy["code"],
            remedy["treats_cause"],
        )
        if kind in changes.BY_KIND:
            proposed.append(change)
        else:
            advised.append(Advice(change.label, change.text, remedy["why"], remedy["code"]))
    causes = tuple(cause["name"] for cause in facts["diagnosis"]["causes"])
    rates = facts["rates"]
    case = Case(
        causes,
        tuple(proposed),
        tuple(facts["groups"]),
        None if rates is None else (rates[0], rates[1]),
        facts["knobs"],
        **facts["modules"],
    )
    return case, advised
