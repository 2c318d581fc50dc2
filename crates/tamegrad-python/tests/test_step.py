"""The phases of a step come in their order, whatever the loop does."""

from __future__ import annotations

import pytest
from conftest import batches, loss_of, mlp, watched

from tamegrad._step import Phase, Step


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([Phase.READ, Phase.JUDGED], None),
        ([Phase.READ, Phase.DEFERRED, Phase.JUDGED], None),
        ([Phase.UNWATCHED], None),
        ([Phase.READ, Phase.UNWATCHED], None),
        ([Phase.JUDGED], "step 3: JUDGED cannot follow COMING"),
        ([Phase.READ, Phase.READ], "step 3: READ cannot follow READ"),
        ([Phase.READ, Phase.JUDGED, Phase.DEFERRED], "step 3: DEFERRED cannot follow JUDGED"),
        ([Phase.UNWATCHED, Phase.JUDGED], "step 3: JUDGED cannot follow UNWATCHED"),
    ],
)
def test_a_phase_follows_the_one_before_it(phases, message):
    step = Step(3)
    for phase in phases[:-1]:
        step.move(phase)
    if message is None:
        step.move(phases[-1])
        assert step.phase is phases[-1]
    else:
        with pytest.raises(RuntimeError, match=message):
            step.move(phases[-1])


@pytest.mark.parametrize("clips", [0, 1, 2])
def test_a_step_is_judged_once_and_a_new_one_takes_its_place(clips):
    model = mlp(2)
    optimizer, guard = watched(model, lr=0.01)
    for number, (x, y) in enumerate(batches(3)):
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        at_hand = guard._steps.step
        assert (at_hand.number, at_hand.phase) == (number, Phase.COMING)
        for _ in range(clips):
            guard.clip_(1.0)
            assert guard._steps.step.phase is Phase.READ
        optimizer.step()
    assert guard.step_number == 3
