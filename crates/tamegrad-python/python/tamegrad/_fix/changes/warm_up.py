"""The learning rate rises linearly over the first steps."""

from __future__ import annotations

KIND = "warm-up"
FAMILY = "warm-up"
KNOB = "warmup_steps"


def turn(change, given):
    """The steps of the change, if they are more."""
    return max(change["steps"], given)


def apply(change, trial, model, optimizers) -> None:
    """Multiplies the rate for the time of a step, so that no scheduler sees it."""
    steps = change["steps"]
    trial.on_rate(lambda rate, step: rate * min(1.0, (step + 1) / steps))
