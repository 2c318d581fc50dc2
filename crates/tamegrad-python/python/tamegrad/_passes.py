"""The passes of a step: what the model was given, what was logged, and what its layers did."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from . import _backward, _clears, _gradients
from ._calls import Call, CarriedState, tensors_of
from ._core import Guard as Core
from ._core import Scan, Trace
from ._finder import next_node
from ._left_gradients import LeftGradients
from ._logged import Logged, add_loss
from ._loss_graph import LossGraph
from ._names import wrappers
from ._numbers import Numbers, merged, with_zeros
from ._operations import has_nan, is_finite
from ._probes import Probes
from ._ranks import Ranks
from ._repeat import StepFn
from ._replay import Replay
from ._taps import Taps, compiled_call, is_plain_call
from ._telling import CallbackError, Teller
from ._time_steps import MadeCalls, TimeSteps, of_calls

_CPU = torch.device("cpu")
_CALLS_MAX = 16
"""Calls by the loop that are kept for one step."""
_REPLAYS_MAX = 5
"""Calm passes of a compiled model that are run again, for a history of gains."""


class Passes:
    """The forward and backward passes of a model, one or several to a step."""

    def __init__(
        self,
        model: nn.Module,
        ranks: Ranks,
        teller: Teller,
        *,
        watches: bool,
        parameters: Sequence[torch.Tensor],
        on_nan_gradient: Callable[[], None],
        on_left: Callable[[], bool],
        on_cleared: Callable[[torch.optim.Optimizer | nn.Module], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.probes = Probes(model)
        self.replay = Replay(self.probes, teller)
        self.calls: list[Call] = []
        """What the loop has called since the last step, as far as it is kept."""
        self.trace: Trace | None = None
        self.count = 0
        """Backward passes of this step, as far as they came through calls of the model."""
        self.loss_graph = LossGraph()
        self.logged = Logged()
        self._start = 0
        """The number of the first node of the call at hand."""
        self._listens = watches
        """Whether the loss of the coming step keeps its lines."""
        self.chance_before: Callable[[], dict[str, Any] | None] = lambda: None
        """Gives the random states that are kept with a call."""
        self._model = model
        self._wrappers = wrappers(model)
        self._ranks = ranks
        self._watches, self._parameters = watches, parameters
        self._on_nan_gradient, self._on_left, self._on_error = on_nan_gradient, on_left, on_error
        self._on_cleared = on_cleared
        self._taps = Taps(self)
        # What the loop calls is known after the first pass; until then the model itself.
        self._entries: set[nn.Module] = {*self._wrappers, self.probes.model}
        self._depth = 0
        self._thread: int | None = None
        """The thread that trains: that of the last step, and before the first that of the first call. One
        that serves the model meanwhile is not looked at."""
        self._has_stepped = False
        self._is_on = False
        self._replays = 0
        self._carried = CarriedState()
        self.holds_broken = False
        """Whether the calls are kept that made a loss that is not finite."""
        self._is_own = False
        """Whether one of them was logged after a call of the model, so that they are of this step."""
        self._broken_loss: float | None = None
        """A loss of this step that is not finite, seen before its backward pass."""
        self._is_open = False
        """Whether calls have come since the last step ended."""
        self._has_begun_backward = False
        """Whether a backward pass has begun since the last call."""
        self._backward_loss: float | None = None
        """The loss of the latest backward pass, as far as it is known without waiting for a device."""
        self._has_logged = False
        """Whether a loss was logged since the last call."""
        self._has_told_broken = False
        """Whether it was that of the latest step, which the loop may yet log."""
        self._ends_broken = False
        """Whether the last one seen so is."""
        self._has_seen_calls = False
        self.left = LeftGradients()
        self.sees_nothing = False
        """Whether steps have come and no call of the model was seen."""
        self.tells_loss = False
        """Whether the model's output holds its loss."""
        self._made: dict[nn.Module, MadeCalls] = {}
        """Calls of the pass at hand that are not kept, by module."""
        self._scan = Scan()
        self._inputs: dict[str, list[Numbers]] = {}
        """Numbers of the inputs of micro-batches whose calls are not kept."""

    def attach(self) -> None:
        """Begins to see the model's calls."""
        self._is_on = True
        if self._watches:
            _backward.attach(self)
            _clears.attach(self)
        self.arm_first()

    def arm_first(self) -> None:
        """Looks at every layer in the coming pass, the first of a run."""
        if self._watches and not self._is_compiled():
            self._arm()
        else:
            self._taps.set(self._entries)

    def arm(self, core: Core, step: int) -> None:
        """Looks at every layer in the coming pass, if the core wants that: now and then, and after an
        alarm whose own pass nothing has seen."""
        wanted = core.wants_trace(step) or core.wants_repeated_trace()
        if wanted and not self._is_compiled():
            self._arm()

    def _arm(self) -> None:
        self.probes.arm()
        self._taps.set({*self._entries, *self.probes.names})

    def detach(self) -> None:
        """Sees no more calls, and lets go of what the model was given."""
        self._is_on = False
        _backward.detach(self)
        _clears.detach(self)
        self.loss_graph.end()
        self.probes.disarm()
        self._taps.set(())
        self.calls = []

    def _is_compiled(self) -> bool:
        return bool(self._wrappers) or any(
            type(module).__name__ == "OptimizedModule" or compiled_call(module) is not None
            for module in self.probes.names
        )

    # --- calls ---------------------------------------------------------------------------------

    def sees(self) -> bool:
        """Whether a call at this moment is one of the training."""
        is_within = self._depth > 0
        if not is_within and self.loss_graph.is_listening:
            self.loss_graph.stop_listening()
        is_known = is_within or self._has_stepped
        if is_known and threading.get_ident() != self._thread:
            return False
        return self._is_on and is_plain_call(is_within)

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before a module's call."""
        outer = self._depth == 0
        if outer:
            self._thread = threading.get_ident()
        try:
            if self.holds_broken and outer and not self.replay.is_running:
                if self._broken_loss is not None and self._is_cleared():
                    self._leave_broken()
                elif self.is_left():
                    self._on_left()
        except CallbackError as error:
            raise error.cause from None
        except Exception as error:
            self._on_error(error)
        self._depth += 1
        try:
            if self.replay.finder is not None:
                self.replay.finder.enter(self.probes.names.get(module, ""))
            if outer and not self.replay.is_running:
                self._begin_call(module, args, kwargs)
            if self.probes.armed:
                self.probes.enter(module, args, kwargs, outer)
        except Exception as error:
            self._on_error(error)

    def leave(self, module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
        """After a module's call."""
        self._depth -= 1
        try:
            if self.replay.finder is not None:
                self.replay.finder.leave()
            if self.probes.armed:
                self.probes.leave(module, args, kwargs, output)
            if self._depth == 0 and not self.replay.is_running:
                self._end_call(module, output)
        except Exception as error:
            self._on_error(error)

    def abandon(self) -> None:
        """In place of ``leave`` when a call has raised."""
        self._depth = max(self._depth - 1, 0)
        error = sys.exc_info()[1]
        is_error = isinstance(error, Exception) and not isinstance(error, StopIteration)
        if is_error and self._depth == 0 and self.calls and not self.replay.is_running:
            self.calls[-1].has_raised = True
        if self.replay.finder is not None:
            self.replay.finder.leave()

    def _begin_call(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        self._entries.add(module)
        self._has_seen_calls, self._has_told_broken = True, False
        self._is_open, self._has_begun_backward, self._has_logged = True, False, False
        self._backward_loss = None
        self._start = next_node()
        # The pass of a micro-batch whose loss is broken is the one to look into.
        if self.holds_broken and self.calls:
            return
        if self.calls:
            self.calls[-1].forget_outputs()
        if self.calls and (self.calls[-1].gradients or len(self.calls) >= _CALLS_MAX):
            self._absorb()
        call = Call(module, self.probes.names.get(module, ""), args, kwargs)
        call.chance = self.chance_before()
        self._carried.enter(call)
        self.calls.append(call)

    def _end_call(self, module: nn.Module, output: Any) -> None:
        nodes = (self._start, next_node())
        call = self.calls[-1] if self.calls else None
        if call is not None and call.module is module and not self.holds_broken:
            call.watch_outputs(output)
            call.nodes = nodes
            self._carried.leave(call, output)
        self.loss_graph.see_call(*nodes)
        if self._listens and not self._is_compiled():
            made = next((t for t in tensors_of(output) if t.grad_fn is not None), None)
            if made is not None:
                self.loss_graph.listen(made)
        loss = _loss_in(output)
        if loss is not None:
            self.tells_loss = self._has_logged = True
            self._keep(self.logged.model_losses, loss, breaks=module.training)

    def _absorb(self) -> None:
        """Keeps of a micro-batch that is over the numbers of its inputs, where reading them waits for
        no device."""
        for call in self.calls:
            for name, tensor in self._carried.data_of(call):
                if tensor.device == _CPU:
                    numbers = self.numbers(tensor)
                    if numbers is not None:
                        self._inputs.setdefault(name, []).append(numbers)
        if any(call.gradients for call in self.calls):
            self.count += 1
            self._made = {}
        else:
            for call in self.calls:
                start, end = call.nodes
                if start < end:
                    self._made.setdefault(call.module, MadeCalls()).add(call)
        self.calls = []

    def time_steps(self, *, of_loop: bool) -> TimeSteps | None:
        """How the gradient has grown over the calls of the pass at hand, if the loop's count, or over those
        of a layer in the pass that was repeated last."""
        found = of_calls(self.calls, self._made) if of_loop else None
        return found or self.probes.time_steps

    def used_repeatedly(self) -> set[int]:
        """The ids of the parameters that one pass uses several times: of recurrent modules, of those that the
        loop calls more than once, and those that the graph of the loss comes to on several ways."""
        kinds = (nn.RNNBase, nn.RNNCellBase)
        modules = {module for module in self.probes.names if isinstance(module, kinds)}
        called = [*self._made, *(call.module for call in self.calls)]
        modules.update(module for module in called if called.count(module) > 1)
        known = {id(parameter) for module in modules for parameter in module.parameters()}
        return known | self.loss_graph.used_repeatedly()

    # --- what is logged ------------------------------------------------------------------------

    def _keep(self, losses: list[Any], loss: Any, *, breaks: bool = True) -> float | None:
        """Keeps the loss of a pass, and its calls for the step when it is broken and ``breaks``; gives its
        value. What a device holds is not waited for."""
        value = self._scan.number(loss)
        if value is None and isinstance(loss, torch.Tensor):
            loss = loss.detach()
        if value is None and getattr(loss, "device", _CPU) == _CPU:
            value = float(loss)
        if value is not None:
            self.holds_broken |= breaks and bool(self.calls) and not math.isfinite(value)
        add_loss(losses, loss if value is None else value)
        return value

    def see_backward(self, root: torch.Tensor, *, is_alone: bool) -> None:
        """Looks at a loss whose backward pass is about to begin, whoever logs it and when, unless it is
        that of another guard's model."""
        is_own = self.calls and threading.get_ident() == self._thread
        if not self._is_on or self.replay.is_running or not is_own:
            return
        self._has_begun_backward = True
        try:
            if self._broken_loss is not None and self._is_cleared():
                self._leave_broken()
                self._has_begun_backward = True
            self.left.see_backward()
            if root.numel() != 1:
                return
            if not is_alone and not self.loss_graph.is_of_call(root):
                return
            value = self._backward_loss = float(root.detach()) if root.device == _CPU else None
            self.loss_graph.see(root, value, begins_backward=True)
            self._ends_broken = value is not None and not math.isfinite(value)
            if self._ends_broken:
                self._broken_loss, self.holds_broken = value, True
        except CallbackError as error:
            raise error.cause from None
        except Exception as error:
            self._on_error(error)

    def see_clearing(self, of: torch.optim.Optimizer | nn.Module) -> None:
        """Looks at gradients which the loop is about to clear though it has made no step from them."""
        if not self._is_on or self.replay.is_running or threading.get_ident() != self._thread:
            return
        try:
            if self.has_gradients():
                self._on_cleared(of)
        except CallbackError as error:
            raise error.cause from None
        except Exception as error:
            self._on_error(error)

    def is_left(self) -> bool:
        """Whether no backward pass has begun from the calls at hand, and the last one is of training."""
        has_begun = self._has_begun_backward or self._has_come_back()
        return self._is_open and not has_begun and self._is_of_training()

    def has_gradients(self) -> bool:
        """Whether a backward pass has come to the calls at hand, and the last one is of training."""
        return self._is_open and self._has_come_back() and self._is_of_training()

    def is_in(self, part: Any) -> bool:
        """Whether the model is a module, or a part of it."""
        return isinstance(part, nn.Module) and any(own is self._model for own in part.modules())

    def _has_come_back(self) -> bool:
        return any(call.gradients for call in self.calls)

    def _is_of_training(self) -> bool:
        return bool(self.calls) and self.calls[-1].is_of_training

    def is_unfinished(self) -> bool:
        """Whether a backward pass has begun from a loss that is not finite, and no step came."""
        losses = map(float, self.logged.losses if self._has_logged else ())
        is_scaled = self._has_logged and all(map(math.isfinite, losses))
        has_begun = self._is_open and self._broken_loss is not None
        return has_begun and self._is_of_training() and not is_scaled

    def end_loss(self) -> float | None:
        """The loss of the pass that came last where it is not finite, wherever it is; NaN where the loop has
        come to none and the model's outputs are NaN."""
        losses = self.logged.losses or self.logged.model_losses
        if self.holds_broken or (self._has_logged and losses):
            broken = [loss for loss in map(float, losses) if not math.isfinite(loss)]
            return broken[-1] if broken else self._broken_loss
        return math.nan if self._has_nan_output() else None

    def take_end_loss(self, loss: float) -> None:
        """Takes that for the loss of the step at hand."""
        self.holds_broken = True
        self.logged.losses = [loss]

    def dropped_loss(self, scale: float) -> float | None:
        """The loss of the pass whose gradients the loop drops; it may have been scaled by ``scale``."""
        if self._is_own:
            losses = [loss for loss in self.logged.losses if isinstance(loss, float)]
            return losses[-1] if losses else None
        return None if self._backward_loss is None else self._backward_loss / scale

    def begin_dropped(self, scale: float) -> list[Any]:
        """Takes that loss for the one of the step at hand; gives those that were logged for a later one."""
        loss, later = self.dropped_loss(scale), self.logged.losses
        if self._is_own:
            return []
        self.logged.losses = [] if loss is None else [loss]
        return later

    def _has_nan_output(self) -> bool:
        """Whether the model's last call has given NaN, or its last layer has before it raised an error."""
        call = self.calls[-1]
        outputs = call.outputs().values()
        if outputs:
            # A metric among the outputs may be NaN, 0 of 0, and nothing come of it.
            return all(map(has_nan, outputs))
        trace = self.repeated() if call.has_raised else None
        numbers = [trace.get_output(layer) for layer in range(len(trace))] if trace else []
        known = [of for of in numbers if of is not None]
        return bool(known) and known[-1][1] > 0

    def inputs_at_hand(self) -> tuple[list[tuple[str, Any]], Any]:
        """The inputs, with their names, and the targets of the pass at hand, as far as they are known."""
        given, targets = self.logged.given()
        return self._inputs_of_step(given), targets

    def _is_cleared(self) -> bool:
        """Whether nothing is left of a backward pass from a loss that was not finite."""
        return all(p.grad is None or is_finite(p.grad) for p in self._parameters)

    def _leave_broken(self) -> None:
        """Has the pass that made it judged, before the one at hand."""
        losses = self.logged.losses
        finite = [isinstance(loss, float) and math.isfinite(loss) for loss in losses]
        own = losses[len(losses) - [*reversed(finite), False].index(False) :]
        if self._on_left():
            self.logged.losses = own

    def see_nan_gradient(self, root: torch.Tensor, *, is_alone: bool) -> None:
        """Takes in that a backward pass was stopped at a gradient that is NaN, if it was of this model."""
        is_own = self.calls and threading.get_ident() == self._thread
        if self._is_on and not self.replay.is_running and is_own:
            try:
                if is_alone or self.loss_graph.is_of_call(root):
                    self._on_nan_gradient()
            except Exception as error:
                self._on_error(error)

    def log(self, loss: Any, metric: Any, inputs: Any, targets: Any, batch: Any = None) -> None:
        """Keeps what was logged for the step at hand."""
        self.logged.keep(metric, inputs, targets, batch)
        if loss is not None:
            value = self._keep(self.logged.losses, loss)
            self._has_logged |= bool(self.calls)
            self._is_own |= bool(self.calls)
            is_broken = value is not None and not math.isfinite(value)
            if is_broken and self._has_told_broken:
                del self.logged.losses[-1]
            else:
                self.loss_graph.see(loss, value)
                # Of several, the batch whose loss is broken is the one to look into.
                self.logged.holds_batch |= is_broken

    def take_logged(self, nonfinite: int) -> dict[str, Any]:
        """What is known of the step at hand, whose gradients have so many elements that are not
        finite; what was logged is used up."""
        losses = self.logged.losses or self.logged.model_losses
        # The loop may have left out an earlier one, and cleared its gradients.
        is_seen = self._broken_loss is not None and (nonfinite or self._ends_broken)
        self._has_told_broken = bool(is_seen and not (losses and self._is_own))
        if self._has_told_broken:
            losses = [self._broken_loss]
        constant_loss = self._constant_loss(losses)
        self.forget_losses()
        metric, given, targets = self.logged.take()
        # Broken inputs under gradients that are not: a step that a GradScaler has left out.
        is_of_step = not self.holds_broken or nonfinite
        inputs = self._inputs_of_step(given) if given is not None or is_of_step else []
        self._inputs = {}
        return {
            "losses": losses,
            "metric": metric,
            "trace": self.trace,
            "inputs": inputs,
            "targets": targets,
            "constant_loss": constant_loss,
        }

    def _inputs_of_step(self, given: Any) -> list[tuple[str, Any]]:
        if given is not None:
            return [("inputs", given)]
        parts = [(name, part) for name, parts in self._inputs.items() for part in parts]
        return parts + [pair for call in self.calls for pair in self._carried.data_of(call)]

    def _constant_loss(self, losses: list[Any]) -> float | None:
        """What a constant answer would have of the loss at hand, where its graph tells."""
        logged = losses[-1] if losses else None
        for value, constant in self.loss_graph.constants:
            is_float = isinstance(logged, float) and value is not None
            if losses and (
                value is None or (is_float and math.isclose(logged, value, rel_tol=1e-3))
            ):
                return constant
        return None

    def take_losses(self) -> list[Any]:
        """The losses that were logged since the step; they are used up."""
        losses, self.logged.losses = self.logged.losses, []
        return losses

    def forget_losses(self) -> None:
        """Lets go of the losses of a step."""
        self.logged.losses, self.logged.model_losses, self._is_own = [], [], False
        self._broken_loss, self._ends_broken = None, False

    def end(self, *, keeps_calls: bool = False) -> None:
        """Ends the step."""
        self.logged.rows_before = {}
        self.holds_broken = False
        self.end_losses()
        self.sees_nothing = not self._has_seen_calls
        # An interrupt between two lines of ours leaves a call open.
        self._depth = 0
        self._carried.end()
        if not keeps_calls:
            # The gradient at the output, of a language model's logits, is large.
            self.calls = []
        if not self.probes.armed:
            self._taps.set(self._entries)

    def end_losses(self) -> None:
        """Lets go of the losses of a step, their graphs, and its batch."""
        self.loss_graph.end()
        self.logged.end_batch()
        self.count, self._made = 0, {}
        self._listens = self._is_open = False

    def named_inputs(self, inputs: list[tuple[str, Any]]) -> list[tuple[str, Numbers]]:
        """The numbers of each input, those of several passes together."""
        parts: dict[str, list[Numbers]] = {}
        for name, tensor in inputs:
            numbers = self.numbers(tensor)
            if numbers is not None:
                parts.setdefault(name, []).append(numbers)
        return [(name, merged(numbers)) for name, numbers in parts.items()]

    def broken_state(self) -> str | None:
        """The argument that the loop carries from pass to pass, where it is not finite."""
        for call in self.calls:
            for name, tensor in call.inputs:
                numbers = self.numbers(tensor) if name in self._carried.names else None
                if numbers is not None and numbers[1] + numbers[2]:
                    return name
        return None

    def numbers(self, tensor: torch.Tensor | Numbers | None) -> Numbers | None:
        """Statistics of a tensor of any kind."""
        if tensor is None or isinstance(tensor, tuple):
            # A tuple is what was logged before the run was interrupted.
            return tensor
        numbers = self._scan.numbers_of(tensor)
        if numbers is not None:
            return numbers
        dense, missing = _gradients.values_of(tensor.detach())
        numbers = _gradients.numbers_of(self._scan, dense)
        return None if numbers is None else with_zeros(numbers, missing)

    # --- layers --------------------------------------------------------------------------------

    def step_in_this_thread(self) -> None:
        """Takes the thread that calls for the one that trains."""
        self._thread, self._has_stepped = threading.get_ident(), True

    def take_trace(self, core: Core | None, step: int) -> None:
        """Takes what was seen of the layers in this step's pass, or runs it again where nothing can
        be seen."""
        self.trace = None
        if self.probes.armed:
            self.trace = self._ranks.combine_trace(self.probes.collect())
            self._taps.set(self._entries)
        if self.trace is None and self._wants_replay(core, step):
            self._replays += 1
            self.trace = self.repeated()

    def _wants_replay(self, core: Core | None, step: int) -> bool:
        """Whether a pass of a compiled model, whose layers cannot be seen, is run again without
        compiling: a few times, for a history of gains."""
        if not self._watches or self._replays >= _REPLAYS_MAX or not self.calls:
            return False
        return (core is None or core.wants_trace(step)) and self._is_compiled()

    def repeated(
        self, *, finds: bool = False, parameters: Sequence[torch.Tensor] = ()
    ) -> Trace | None:
        """What is seen of the layers when the latest pass is run again, and of the gradients of these
        parameters; ``finds`` looks for the operation that made what is not finite as well. Among several
        ranks all must call it."""
        self.replay.norm_of_one, trace = None, None
        if self.calls and self.replay.is_possible:
            with self._all_layers_tapped():
                trace = self.replay.run_pass(self.calls, finds=finds, parameters=parameters)
        return self._ranks.combine_trace(trace)

    def repeat_step(
        self, step_fn: StepFn, parameters: Sequence[torch.Tensor], scale: float
    ) -> None:
        """Looks for the operation in the whole step, its loss as well, which is run again on the batch
        that was logged."""
        if self.logged.batch is not None and self.replay.is_possible:
            with self._all_layers_tapped():
                self.replay.run_step(step_fn, self._model, self.logged.batch, parameters, scale)

    @contextlib.contextmanager
    def _all_layers_tapped(self) -> Iterator[None]:
        self._taps.set({*self._entries, *self.probes.names})
        try:
            yield
        finally:
            self._taps.set(self._entries)

    def search_again(self) -> None:
        """Keeps of the coming step what the graph of its loss can tell."""
        self._listens = True
        self.loss_graph.look_again()

    # --- the state -----------------------------------------------------------------------------

    def state(self, *, has_core: bool) -> dict[str, Any]:
        """The entries of the guard's state that are known here."""
        modules, calls = self.probes.places() if has_core else ([], [])
        return {
            "modules": modules,
            "calls": calls,
            "replays": self._replays,
            **self.logged.state(self.numbers),
        }

    def restore(self, entries: dict[str, Any]) -> None:
        """Takes the entries of a state that was checked."""
        self._replays = entries["replays"]
        self.end()
        self.logged.restore(entries)
        self.replay.forget()
        # The lines of the loss are learnt anew.
        self.loss_graph.end()
        self.loss_graph, self._listens = LossGraph(), self._watches

    def resume(self, entries: dict[str, Any], core: Core | None, step: int) -> None:
        """Looks at the layers in the coming pass if the core wants that."""
        self.probes.restore(entries["modules"], entries["calls"], fixed=core is not None)
        self.sees_nothing = False
        self._taps.set(self._entries)
        if core is None:
            self.arm_first()
        else:
            self.arm(core, step)


def _loss_in(output: Any) -> torch.Tensor | None:
    """The loss, where a model's output is a mapping that holds it."""
    loss = output.get("loss") if isinstance(output, Mapping) else None
    is_loss = isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1
    return loss if is_loss else None
