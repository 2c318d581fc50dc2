"""What is found when a pass or a whole step is run again: its layers, and the operation that broke."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ._calls import Call
from ._core import Trace
from ._finder import Finder
from ._loss_graph import LossGraph
from ._operations import Labels, MeasuredOperation, TargetRange, is_finite
from ._probes import Probes
from ._repeat import Moved, StepFn, repeat, repeat_step
from ._telling import Teller


class Replay:
    """Runs passes again, as long as that leaves everything as it was, and keeps what was found."""

    def __init__(self, probes: Probes, teller: Teller) -> None:
        self.operation: MeasuredOperation | None = None
        """What has made the first value that is not finite, found after an alarm."""
        self.labels: Labels | None = None
        self.target_range: TargetRange | None = None
        self.norm_of_one: float | None = None
        """Norm of the gradients of the pass that was repeated last."""
        self.finder: Finder | None = None
        """What looks at every operation of the pass that is running again."""
        self.is_running = False
        """Whether a pass is running again just now."""
        self.is_possible = True
        """Whether no pass was seen that cannot be repeated or undone."""
        self._outputs_are_finite = False
        """Whether the outputs of the pass that was repeated last are."""
        self._probes = probes
        self._teller = teller

    def run_pass(
        self, calls: list[Call], *, finds: bool, parameters: Sequence[torch.Tensor]
    ) -> Trace | None:
        """Runs the pass that these calls made; gives what was seen of the layers."""
        trace = None
        self.is_running = True
        self.finder = Finder() if finds else None
        try:
            trace, found, moved = repeat(
                self._probes, calls, finder=self.finder, parameters=parameters
            )
            if found:
                self.norm_of_one = float(nn.utils.get_total_norm(found))
            self._tell_moved(moved)
            if self.finder is not None:
                # A pass that depends on what it changes may have given other outputs before.
                self._outputs_are_finite = self.finder.outputs_are_finite and not moved
        except (Exception, SystemExit) as error:
            self.is_possible = False
            outputs = [output for call in calls for output in call.outputs().values()]
            self._outputs_are_finite = bool(outputs) and all(map(is_finite, outputs))
            self._teller.warn(
                f"a pass could not be repeated to see its layers ({error}); from now on they are "
                "sampled only every trace_every steps"
            )
        finally:
            self._end()
        return trace

    def run_step(
        self,
        step_fn: StepFn,
        model: nn.Module,
        batch: Any,
        parameters: Sequence[torch.Tensor],
        scale: float,
    ) -> None:
        """Runs a whole step on its batch, with the backward pass from this scale of the loss."""
        self.is_running = True
        self.finder = finder = Finder()
        try:
            moved = repeat_step(
                step_fn, model, batch, finder=finder, parameters=parameters, scale=scale
            )
            self._tell_moved(moved)
        except Exception as error:
            self._teller.warn(f"the step could not be repeated to find what broke ({error})")
        finally:
            self._end()

    def search_loss(
        self,
        graph: LossGraph,
        calls: list[Call],
        *,
        loss_is_finite: bool,
        was_stopped: bool,
        is_broken: bool,
    ) -> None:
        """Looks for the operation in the graph of a loss, where the pass of the model is not what
        broke. A backward pass that was stopped before it came to the model broke in the loss. Where only the
        gradients of parameters are broken (``is_broken``), the loss may hold gradients itself, as a gradient
        penalty does."""
        gradients = [gradient for call in calls for gradient in call.gradients.values()]
        is_before_model = was_stopped and not gradients
        breaks_here = not loss_is_finite or is_before_model or not all(map(is_finite, gradients))
        if self.operation is None and calls and self._outputs_are_finite and breaks_here:
            self.operation = graph.culprit(is_finite=loss_is_finite)
        elif self.operation is None and is_broken and loss_is_finite:
            self.operation = graph.culprit(is_finite=True, by_values=True)
        self.labels = self.labels or graph.labels
        self.target_range = self.target_range or graph.target_range

    def forget(self) -> None:
        """Lets go of what was found."""
        self.operation, self.labels, self.target_range = None, None, None

    def _end(self) -> None:
        finder, self.finder, self.is_running = self.finder, None, False
        if finder is not None:
            self.operation = finder.operation or self.operation
            self.labels = finder.labels or self.labels
            self.target_range = finder.target_range or self.target_range

    def _tell_moved(self, moved: Moved) -> None:
        if moved:
            self.is_possible = False
            self._teller.warn(
                f"a pass of the model has side effects: it changes {moved.words()}. The repeated pass "
                "was undone, no further pass is repeated, and from now on layers are sampled only every "
                "trace_every steps"
            )
