"""Loops as their authors write them: left alone while they are healthy, told of when they explode."""

from __future__ import annotations

import functools
import importlib
import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from loops_kit import Outcome, differing, exploded, of_tamegrad, recorded


@dataclass(frozen=True)
class Loop:
    """A loop and what is known of it."""

    module: str
    factor: float
    """The rate times this explodes."""
    later: int
    """A step by which the run has calmed down, from which on the rate may be raised."""
    options: dict[str, Any] = field(default_factory=dict)
    learned: float | None = 0.7
    """The last losses are at most this much of the first ones; nothing where they tell nothing."""
    needs: tuple[str, ...] = ()
    clips_itself: bool = False
    """Whether ``guard.clip_`` is called, which rounds otherwise than torch's own clipping."""


LM, GPT, GAN = "loop_word_language_model", "loop_gpt", "loop_gan"
LOOPS = {
    "word-lm-by-hand": Loop(LM, 100.0, 70),
    "word-lm-rnn-by-hand": Loop(LM, 100.0, 70, {"rnn_type": "RNN"}),
    "word-lm-sgd": Loop(LM, 100.0, 70, {"update": "sgd"}),
    "mnist": Loop("loop_mnist", 1e3, 70),
    "vae": Loop("loop_vae", 300.0, 80),
    "gan-two-guards": Loop(GAN, 1e3, 50, {"guards": "two"}, learned=0.9),
    "gan-one-guard": Loop(GAN, 1e3, 50, {"guards": "one"}, learned=0.9),
    "gpt": Loop(GPT, 300.0, 40),
    "gpt-bf16-scaler": Loop(GPT, 300.0, 40, {"dtype": "bfloat16", "scales": True}),
    "gpt-guard-clips": Loop(GPT, 300.0, 40, {"clips": "guard", "scales": True}, clips_itself=True),
    "lightning": Loop("loop_lightning", 1e3, 45, needs=("lightning.pytorch",)),
    "transformers": Loop("loop_transformers", 300.0, 35, needs=("transformers", "accelerate")),
    "ppo": Loop("loop_ppo", 1e3, 64, needs=("stable_baselines3", "gymnasium")),
    "accelerate": Loop("loop_accelerate", 1e3, 60, needs=("accelerate",)),
}
SCHEMA = json.loads((Path(__file__).parents[4] / "docs/diagnosis.schema.json").read_text())
CODE_NAMES = SCHEMA["$defs"]["sign_name"]["enum"]


@functools.cache
def outcome(name: str, mode: str | None, factor: float = 1.0, since: int = 0) -> Outcome:
    """A run, once for all tests that look at it."""
    loop = LOOPS[name]
    for needed in loop.needs:
        pytest.importorskip(needed)
    module = importlib.import_module(loop.module)
    return recorded(lambda: module.run(mode, factor, since, **loop.options))


@pytest.fixture(params=LOOPS)
def name(request):
    """Every loop."""
    return request.param


@pytest.fixture(params=["from the start", "later"])
def since(request, name):
    """The step from which on the rate is too high."""
    return 0 if request.param == "from the start" else LOOPS[name].later


def reference(name: str, factor: float = 1.0, since: int = 0) -> Outcome:
    """What a watched run must be to the bit."""
    if LOOPS[name].clips_itself:
        return outcome(name, "observe", factor, since)
    return outcome(name, None, factor, since)


def test_the_bare_run_learns(name):
    bare = outcome(name, None)
    assert all(math.isfinite(loss) for loss in bare.losses)
    share = LOOPS[name].learned
    if share is not None:
        few = max(len(bare.losses) // 10, 1)
        first, last = fmean(bare.losses[:few]), fmean(bare.losses[-few:])
        assert last < share * first


def test_a_healthy_run_is_left_alone(name, mode):
    watched = outcome(name, mode)
    assert of_tamegrad(watched) == []
    assert [guard.diagnosis().onset for guard in watched.guards] == [None] * len(watched.guards)
    assert [action for guard in watched.guards for action in guard.actions()] == []
    assert differing(watched, reference(name)) == []
    assert set(watched.warned) <= set(outcome(name, None).warned)


def test_a_healthy_run_is_seen_to_its_end(name, mode):
    for guard in outcome(name, mode).guards:
        assert guard.diagnosis().verdict == "healthy"


def test_a_clip_of_the_guard_is_a_clip():
    for name, loop in LOOPS.items():
        if loop.clips_itself:
            ours, theirs = outcome(name, "observe"), outcome(name, None)
            assert ours.losses[:5] == pytest.approx(theirs.losses[:5], rel=1e-4)
            assert ours.losses[-1] == pytest.approx(theirs.losses[-1], rel=0.1)


def test_an_explosion_is_told_and_changed_in_nothing(name, since):
    factor = LOOPS[name].factor
    watched = outcome(name, "observe", factor, since)
    assert exploded(watched.losses, outcome(name, None).losses), (
        "the rate is not so high that the run explodes"
    )
    assert differing(watched, reference(name, factor, since)) == []
    onsets = [guard.diagnosis().onset for guard in watched.guards]
    alarms = [onset for onset in onsets if onset is not None]
    assert alarms, "an alarm"
    assert min(alarms) >= since, "no alarm before it began"
    assert all(guard.actions() == [] for guard in watched.guards)


def test_a_stranger_understands_the_warning(name, since):
    told = of_tamegrad(outcome(name, "observe", LOOPS[name].factor, since))
    alarms = [text for text in told if "guard.diagnosis()" in text]
    assert alarms
    for text in alarms:
        category, _, message = text.partition(": ")
        assert category == "TamegradWarning"
        assert re.search(r"\bstep \d+", message)
        assert re.search("loss|gradient|update", message)
        assert not any(code in message for code in CODE_NAMES), "words, not names of code"


def test_protect_bears_an_explosion(name, since):
    protected = outcome(name, "protect", LOOPS[name].factor, since)
    assert not [text for text in protected.warned if "stopped watching" in text]
    assert all(torch.isfinite(parameter).all() for parameter in protected.parameters)


@pytest.mark.parametrize("name", [n for n, loop in LOOPS.items() if loop.module == LM])
def test_a_model_that_is_saved_whole_is_loaded_where_tamegrad_is_not(name, mode):
    for file in outcome(name, mode).files:
        assert b"tamegrad" not in file
