"""What is looked into once an alarm has come, and worth its time only then."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

from . import _lag
from ._amp import Scaling
from ._calls import floats
from ._core import Guard as Core
from ._core import Scan
from ._inspection import Accumulation, Inspection, broken_parameter
from ._numbers import merged
from ._optimizer_facts import broken_division
from ._passes import Passes
from ._ranks import Ranks
from ._repeat import StepFn
from ._step import Step
from ._telling import Teller
from ._watched import Watched


class AfterAlarm:
    """Measures what the core wants to know after an alarm, and remembers what was looked into."""

    def __init__(
        self,
        watched: Watched,
        passes: Passes,
        scan: Scan,
        scaling: Scaling,
        ranks: Ranks,
        teller: Teller,
        step_fn: StepFn | None,
    ) -> None:
        self.culprits: list[int] = []
        """The ranks whose own share of the batch stood out at the first alarm."""
        self.inspection = Inspection()
        """What was found after an alarm with something that is not finite."""
        self._has_sought_culprits = False
        self._has_sought_operation = False
        self._has_sought_time_steps = False
        self._watched, self._passes, self._scan = watched, passes, scan
        self._scaling, self._ranks, self._teller = scaling, ranks, teller
        self._step_fn = step_fn

    def look(
        self,
        core: Core,
        step: Step,
        loss: float | None,
        own_loss: float | None,
        inputs: Any,
        seen: dict[str, Any],
    ) -> None:
        """Looks into a step with an alarm, or after one; ``seen`` is what was logged for it."""
        if core.wants_lag() and not self._has_sought_culprits:
            self._has_sought_culprits = True
            largest = merged(numbers for _, numbers in inputs)
            self.culprits = self._ranks.culprits(own_loss, largest, self._passes.calls)
            if self.culprits and self._teller.recording is not None:
                self._teller.recording.name_ranks(step.number, self.culprits)
        self._inspect(core, step, loss, seen)
        if core.wants_lag():
            watched = self._watched
            core.observe_lag(_lag.second_moment_lag(watched.parameters, watched.optimizers))
        broken = self._passes.broken_state() if step.nonfinite else None
        if broken is not None:
            self._teller.warn(
                f"step {step.number}: the state `{broken}` that the loop carries from pass to "
                "pass is not finite, so every pass that uses it ends in NaN; reset it",
                once_for="carried",
            )

    def see_update(self, core: Core | None) -> None:
        """Keeps why an update from finite gradients was not finite."""
        if self.inspection.division is None:
            watched = self._watched
            found = broken_division(watched.parameters, watched.optimizers)
            self.inspection.division = found
            # The shards of other ranks may tell something else.
            if found is not None and core is not None and self._ranks.size == 1:
                core.observe_inspection(self.inspection)

    def see_left(self, core: Core) -> None:
        """Keeps what the first steps have left in the gradients: a fault that needs no alarm to be told."""
        norm = self._passes.left.norm
        if norm > 0.0 and self.inspection.accumulation is None and self._ranks.size == 1:
            self.inspection.accumulation = Accumulation(1, 0.0, self._scan.norm(), norm)
            core.observe_inspection(self.inspection)

    def see_time_steps(self, core: Core) -> None:
        """Keeps how the gradient has grown over time in the pass at hand, whether its gradients have raised
        the alarm or its update."""
        if self._see_time_steps() and self._ranks.size == 1:
            core.observe_inspection(self.inspection)

    def _inspect(self, core: Core, step: Step, loss: float | None, seen: dict[str, Any]) -> None:
        """Repeats the pass with a look at every layer, on the same inputs, where the core wants that;
        and at every operation, after the first alarm with something that is not finite."""
        finds, wants_trace = core.wants_operation(), core.wants_repeated_trace()
        if not finds and not wants_trace:
            self.see_time_steps(core)
            return
        trace = self._passes.repeated(finds=finds, parameters=self._watched.parameters)
        if trace is not None and wants_trace:
            core.observe_trace(trace)
        self._see_accumulation()
        self._see_time_steps()
        if finds:
            is_finite = loss is None or math.isfinite(loss)
            self._look_for_operation(step, is_finite, seen)
        core.observe_inspection(self.inspection.agreed(self._ranks))

    def _look_for_operation(self, step: Step, loss_is_finite: bool, seen: dict[str, Any]) -> None:
        passes, replay, found = self._passes, self._passes.replay, self.inspection
        # Ranks would have to do it together, and may not all know the batch.
        is_alone = self._ranks.size == 1
        if replay.operation is None and self._step_fn is not None and is_alone:
            passes.repeat_step(self._step_fn, self._watched.parameters, self._scaling.scale())
        replay.search_loss(
            passes.loss_graph,
            passes.calls,
            loss_is_finite=loss_is_finite,
            was_stopped=step.gradient_is_nan,
            is_broken=step.nonfinite > 0,
        )
        found.operation = replay.operation
        found.labels, found.target_range = replay.labels, replay.target_range
        found.see_rows([*seen["inputs"], ("targets", seen["targets"])])
        found.take_rows(passes.logged.rows_before)
        found.see_rows(floats([("batch", passes.logged.batch)]))
        if found.operation is None:
            passes.search_again()
        if not self._has_sought_operation:
            self._has_sought_operation = True
            if found.operation is None:
                found.parameter = broken_parameter(self._watched.parameters)
            # What is broken before the first update from a broken gradient, an update has broken.
            self.see_update(None)

    def _see_accumulation(self) -> None:
        passes = self._passes
        count = passes.count + any(call.gradients for call in passes.calls)
        norm = (passes.replay.norm_of_one or math.nan) / self._scaling.scale()
        # Of a module that is called several times in a pass only one call is repeated.
        called = [call.module for call in passes.calls]
        is_whole = len(called) == len(set(called))
        if is_whole and math.isfinite(norm) and self.inspection.accumulation is None:
            found = Accumulation(count, norm, self._scan.norm(), passes.left.norm)
            self.inspection.accumulation = found

    def _see_time_steps(self) -> bool:
        """Keeps how the gradient has grown over time; whether that was not known before. Of the passes that
        the loop makes it is the first with an alarm that tells."""
        if self.inspection.time_steps is None:
            is_first, passes = not self._has_sought_time_steps, self._passes
            self._has_sought_time_steps |= any(call.gradients for call in passes.calls)
            self.inspection.time_steps = passes.time_steps(of_loop=is_first)
            return self.inspection.time_steps is not None
        return False

    @contextlib.contextmanager
    def put_back(self) -> Iterator[None]:
        """Forgets afterwards what was looked into meanwhile."""
        replay, kept = self._passes.replay, copy.copy(self.__dict__)
        kept_of_replay = copy.copy(replay.__dict__)
        self.inspection = copy.deepcopy(self.inspection)
        try:
            yield
        finally:
            self.__dict__.update(kept)
            replay.__dict__.update(kept_of_replay)

    # --- the state -------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The entries of the guard's state that are known here."""
        return {
            "culprits": list(self.culprits),
            "culprits_sought": self._has_sought_culprits,
            "operation_sought": self._has_sought_operation,
        }

    def restore(self, entries: dict[str, Any], core: Core | None) -> None:
        """Takes the entries of a state that was checked."""
        self.culprits = list(entries["culprits"])
        self._has_sought_culprits = entries["culprits_sought"]
        self._has_sought_operation = entries["operation_sought"]
        self.inspection = Inspection()
        if self._has_sought_operation and core is not None and core.wants_operation():
            self._passes.search_again()
