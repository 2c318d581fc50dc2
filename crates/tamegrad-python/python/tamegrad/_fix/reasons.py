"""Why a trial was not chosen, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .outcome import EXPLODING, MARGIN, Outcome

if TYPE_CHECKING:
    from .result import Fix


def reason(trial: Outcome, found: Fix) -> str:
    """Why a trial was not chosen; empty for the chosen one."""
    best = found.best
    if trial is best:
        return ""
    if trial.status == "refused":
        return f"does not apply: {trial.error}"
    if trial.status == "failed":
        return f"the objective raised {trial.error}"
    if trial.verdict in EXPLODING:
        return f"explodes at step {trial.onset}"
    if trial.verdict == "not-learning":
        return "learns nothing"
    if best is None:
        return "nothing was trained to the end"
    if trial.label == best.label:
        return "led to the trial that was chosen"
    return _beside(trial, found, best)


def _beside(trial: Outcome, found: Fix, best: Outcome) -> str:
    """Why a trial that went well was passed over, from the trial of the chosen change on the same part
    of the training."""
    same = (
        o for o in found.trials if (o.label, o.part, o.seed) == (best.label, trial.part, trial.seed)
    )
    rival = next(same, best)
    ours, theirs = trial.score(found.sign), rival.score(found.sign)
    if trial.verdict == "recovered" and rival.is_healthy:
        return f"explodes at step {trial.onset} and recovers; {best.label} does not explode"
    if ours > theirs + MARGIN * abs(theirs):
        return f"has a better metric, but {_weaker(trial, found)}"
    if ours >= theirs - MARGIN * abs(theirs):
        return f"within {MARGIN:.0%} of {best.label}, which changes less"
    return f"{best.label} does better by more than {MARGIN:.0%}"


def _weaker(trial: Outcome, found: Fix) -> str:
    """What spoke against a trial that looked better than the chosen one."""
    later = [o for o in found.trials if o.label == trial.label and o is not trial]
    for other in later:
        if other.verdict in EXPLODING:
            return f"it explodes with seed {other.seed} at step {other.onset}"
        if other.part >= 1.0:
            return "it did worse when trained to the end"
    return "the budget did not allow training it to the end"
