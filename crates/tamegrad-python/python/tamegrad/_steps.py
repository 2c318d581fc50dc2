"""One training step after another: its gradients are read, the core judges them, and what it decides is
done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from . import _checkpoint, _clipping, _device, _gradients, _layout, _ranks
from ._after_alarm import AfterAlarm
from ._amp import Scaling
from ._core import Guard as Core
from ._core import Scan
from ._hidden import HiddenGradients
from ._incident_writer import Incidents, Place
from ._logged import mean
from ._passes import Passes
from ._rate import Rate, rate_of
from ._repeat import StepFn
from ._snapshots import Snapshots
from ._step import Phase, Step
from ._telling import Teller
from ._update import UpdateWatch
from ._watched import Watched

Clip = Callable[[list[float] | None], None]
"""Clips the gradients; it is given the factor of each tensor by which the core has them scaled."""


class Steps:
    """The steps of a run, in the order in which the loop takes them: ``clip`` if it clips, ``open``
    before the update of each optimizer and ``close`` after it."""

    def __init__(
        self,
        model: nn.Module,
        watched: Watched,
        *,
        options: dict[str, Any],
        scheduler: Any,
        scaler: Any,
        on_rewind: Callable[[int], None] | None,
        process_group: Any,
        step_fn: StepFn | None,
        incidents: Place,
        teller: Teller,
        on_error: Callable[[Exception], None],
    ) -> None:
        self._watched = watched
        self._options = options
        self._protects = options["mode"] == "protect"
        self._teller = teller
        self.core: Core | None = None
        """The core's guard, from the first pass on, which shows the layers."""
        self.step = Step(0)
        self.should_stop = False
        self.ceiling = _clipping.Ceiling()
        self.scan = Scan()
        self.scaling = Scaling(scaler, watched.optimizers, watched.parameters)
        self._rows = _device.Rows() if watched.has_device() else None
        self._ranks = _ranks.Ranks(model, watched.parameters, process_group)
        if self._protects and self._ranks.may_average_by_hand:
            teller.warn(
                "this process is one of several ranks and the model is not wrapped (DDP, FSDP2): if "
                "they average their gradients by hand, pass process_group=torch.distributed.group."
                "WORLD to tamegrad.watch on every rank, so that all ranks decide the same"
            )
        watches = options["mode"] != "off"
        self.passes = Passes(
            model,
            self._ranks,
            teller,
            watches=watches,
            parameters=watched.parameters,
            on_nan_gradient=self.stopped,
            on_left=self.left,
            on_cleared=self.cleared,
            on_error=on_error,
        )
        self.after_alarm = AfterAlarm(
            watched, self.passes, self.scan, self.scaling, self._ranks, teller, step_fn
        )
        self.update = UpdateWatch(
            watched.parameters,
            watched.optimizers,
            ranks=self._ranks,
            scaling=self.scaling,
            samples=self._rows is None,
        )
        self.update.before_undo = lambda: self.after_alarm.see_update(self.core)
        self._snapshots = Snapshots(
            watched,
            model,
            scheduler,
            scaler,
            on_rewind,
            most=options["snapshots_max"],
            keeps_calm=self._protects,
        )
        self._rate = Rate()
        self._hidden = HiddenGradients()
        self.incidents = Incidents(model, incidents, process_group, teller)
        self._awaited: tuple[Step, dict[str, Any]] | None = None
        """A deferred step, and what was logged for it."""

    def detach(self, has_failed: bool) -> None:
        """Puts back what is changed for the time of a step, and sees no more calls."""
        self._hidden.show()
        self.scaling.detach()
        self.passes.detach()
        self._rate.restore()
        self._ranks.leave(has_failed)

    # --- what the loop does ----------------------------------------------------------------------

    def clip(self, clip: Clip, bound: float | None) -> float:
        """Reads the gradients and clips them, to a norm of at most ``bound`` where that is known; gives
        the norm before."""
        self._hidden.show()
        self.scaling.unscale()
        if self.step.stepped:
            self._end()
        self.step = Step(self.step.number)
        self._read(wait=True)
        self.step.clipped_to = bound
        norm = self.scan.norm()
        if self.step.nonfinite:
            # Judged when the step really comes: after an overflow a GradScaler leaves it out.
            self._leave_out()
            return norm
        factors = self._decide() if self._protects else None
        if not self.step.is_left_out:
            clip(factors)
        return norm

    def open(self, optimizer: torch.optim.Optimizer) -> None:
        """Before an optimizer's update; before the first one of a step the core decides."""
        self._rate.restore()
        self._hidden.show()
        self.scaling.has_opened = True
        if id(optimizer) in self.step.stepped:
            self._end()
        first = not self.step.stepped
        self.step.stepped.add(id(optimizer))
        if first:
            if self.scaling.overflowed():
                self._see_overflow()
            else:
                self._begin()
        if self.step.is_left_out:
            self._hidden.hide(optimizer)
        if self.core is not None and self._protects:
            self._rate.lower(optimizer, self.core.learning_rate_factor())

    def close(self, optimizer: torch.optim.Optimizer) -> None:
        """After an optimizer's update; after the last one's the step is over."""
        self._rate.restore()
        self._hidden.show()
        if len(self.step.stepped) == len(self._watched.optimizers):
            self._end()

    def left_out(self, optimizer: torch.optim.Optimizer) -> None:
        """In place of ``open`` and ``close``, when a loss scaler has not made an optimizer's update."""
        if id(optimizer) in self.step.stepped:
            self._end()
        first = not self.step.stepped
        self.step.stepped.add(id(optimizer))
        if first:
            self._see_overflow()
        self.close(optimizer)

    @torch.no_grad()
    def stopped(self) -> None:
        """In place of ``open`` and ``close``, when torch's anomaly mode has stopped the backward pass at a
        gradient that is NaN. Other ranks may know nothing of it."""
        if self._ranks.size > 1:
            return
        self._start_anew()
        self._read(self.scaling.factor())
        self.step.gradient_is_nan = True
        self.step.nonfinite += 1
        self._decide_and_leave_out()

    @torch.no_grad()
    def left(self) -> bool:
        """In place of ``open`` and ``close``, when the loop has left a pass before its backward pass because
        the loss is not finite; says whether it was judged. Other ranks may know nothing of it, and a step
        that an optimizer has begun goes on."""
        if self._ranks.size > 1 or self.step.stepped or self.update.is_in_closure:
            return False
        self._start_anew()
        # The gradients that are there are those of an earlier pass.
        for optimizer in self._watched.optimizers:
            self._hidden.hide(optimizer)
        self._read()
        self._hidden.show()
        self.step.nonfinite += 1
        self._decide_and_leave_out()
        return True

    @torch.no_grad()
    def cleared(self, of: torch.optim.Optimizer | nn.Module) -> None:
        """In place of ``open`` and ``close``, when the loop clears gradients from which it has made no step;
        only where they are not finite has it left out a step because of that."""
        if any(of is own for own in self._watched.optimizers) or self.passes.is_in(of):
            self._drop()

    def _drop(self) -> None:
        """Judges gradients that are not finite and that no optimizer shall see. Other ranks may know nothing
        of it, and a step that an optimizer has begun goes on."""
        if self._ranks.size > 1 or self.step.stepped or self.update.is_in_closure:
            return
        if self.step.phase is Phase.COMING:
            if not self._has_nonfinite_gradient():
                return
            later = self.passes.begin_dropped(self.scaling.scale())
            self._start_anew()
            self._read(self.scaling.factor(), wait=True)
            self._decide_and_leave_out()
            self.passes.logged.losses = later
        elif self.step.phase is Phase.READ and self.step.nonfinite:
            self._decide_and_leave_out()

    def _has_nonfinite_gradient(self) -> bool:
        """Whether a gradient is not finite, and a lower loss scale would not mend it."""
        if self.scaling.is_used() and self.scaling.is_of_scale():
            return False
        scan, rows = Scan(), None if self._rows is None else _device.Rows()
        _gradients.read(scan, self._watched.parameters, rows)
        if rows is not None:
            rows.launch()
            rows.finish(scan)
        return scan.nonfinite() > 0

    @torch.no_grad()
    def see_end(self) -> None:
        """Judges what the loop has left unfinished where that is not finite, at the end of a run. Other
        ranks may have gone."""
        if self._ranks.size > 1 or self._awaited is not None:
            return
        if self.passes.is_left():
            loss = self.passes.end_loss()
            if loss is not None:
                self.passes.take_end_loss(loss)
                self.left()
        # A scale that is too large breaks loss and gradients without harm.
        elif self.passes.is_unfinished() and not self.scaling.is_used():
            if self.step.phase is Phase.COMING:
                self._start_anew()
                self._read(wait=True)
            if self.step.phase is Phase.READ:
                self._decide_and_leave_out()
        elif self.passes.has_gradients():
            self._drop()

    @torch.no_grad()
    def diagnosed(self) -> Core:
        """The core to make a diagnosis from. Where the loop has left the pass at hand, and it is not finite,
        that is a copy that has judged it: the loop may yet go on with it."""
        passes = self.passes
        if self.core is None:
            self.see_end()
        if self.core is None or self._ranks.size > 1 or self._awaited is not None:
            return self.core_or_new()
        if self.step.phase is not Phase.COMING:
            return self.core
        is_left = passes.is_left()
        if is_left or (passes.is_unfinished() and not self.scaling.is_used()):
            loss = passes.end_loss()
            if loss is None:
                return self.core
        elif passes.has_gradients() and not self.step.stepped and self._has_nonfinite_gradient():
            loss = passes.dropped_loss(self.scaling.scale())
        else:
            return self.core
        core = Core.restored(self.core.state(), self._watched.names, **self._options)
        step, scan = Step(self.step.number, nonfinite=1), Scan()
        named, targets = passes.inputs_at_hand()
        inputs = passes.named_inputs(named)
        if not is_left:
            _gradients.read(scan, self._watched.parameters)
        core.observe(
            step.number,
            scan,
            loss=loss,
            learning_rate=rate_of(self._watched.optimizers),
            inputs=inputs,
            targets=passes.numbers(targets),
        )
        with self.after_alarm.put_back():
            seen = {"inputs": named, "targets": targets}
            self.after_alarm.look(core, step, loss, loss, inputs, seen)
        core.observe_update(None)
        return core

    def _start_anew(self) -> None:
        self._hidden.show()
        if self.step.stepped:
            self._end()
        self.step = Step(self.step.number)

    def _decide_and_leave_out(self) -> None:
        self._decide()
        self._leave_out()
        self._end()

    def by_hand(self) -> bool:
        """Before an update that no optimizer makes; says whether it shall be made."""
        if self.step.stepped:
            self._end(ends_passes=False)
        self.step.stepped.add(0)
        self._begin()
        # The update is measured when the next step comes; this step's passes are over.
        self._end_passes(self.step.number + 1)
        return not self.step.is_left_out

    def settle(self) -> None:
        """Judges the step whose numbers were still on their way from the device."""
        if self._awaited is None or self._rows is None:
            return
        (step, seen), self._awaited = self._awaited, None
        self._rows.finish(self.scan)
        if not seen["losses"]:
            seen["losses"] = self.passes.take_losses()
        step.nonfinite = self.scan.nonfinite() + step.gradient_is_nan
        self._judge(step, seen)
        assert self.core is not None
        self.core.observe_update(None)
        self._teller.tell(self.core)

    def settle_alone(self) -> None:
        """Does so at the end of a run, unless there are other ranks: they may have gone."""
        if self._ranks.size == 1:
            self.settle()

    def take_newcomers(self) -> None:
        """Watches the parameters that the optimizers hold by now as well."""
        added = self._watched.take_newcomers()
        if added and self.core is not None:
            owners = self.passes.probes.owners
            self.core.add_tensors([_layout.row(p, name, owners) for p, name in added])
        self._ranks.know(self._watched.parameters)
        self.update.forget()
        self._snapshots.renew()

    def scale(self, factors: list[float] | None, max_norm: float) -> None:
        """Scales each tensor by its factor and all of them so that the norm is in bounds."""
        parameters = self._watched.parameters
        if factors is None:
            norm = self.scan.norm()
            if norm > max_norm:
                _gradients.scale(self.scan, parameters, max_norm / norm)
            return
        norms = [norm * factor for norm, factor in zip(self.scan.norms(), factors, strict=True)]
        norm = math.hypot(*(norm for norm in norms if norm == norm))
        clip = max_norm / norm if norm > max_norm else 1.0
        _gradients.scale(self.scan, parameters, [factor * clip for factor in factors])

    # --- one step --------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Before the first update: read, decide, carry out."""
        if self.step.phase is Phase.COMING:
            self._read(self.scaling.factor())
            if not self._rows:
                self.ceiling.see(self.step.number, self.scan.norm())
                self.step.clipped_to = self.ceiling.bound()
        if self.step.phase is Phase.READ:
            factors = self._decide()
            if not self.step.is_left_out and factors is not None:
                self.scale(factors, math.inf)
        if not self.step.is_left_out:
            self._before_update()

    def _read(self, factor: float = 1.0, wait: bool = False) -> None:
        self.settle()
        self.passes.step_in_this_thread()
        if self._watched.has_grown():
            self.take_newcomers()
        self.passes.take_trace(self.core, self.step.number)
        # The first pass has shown the layers.
        if self.core is None:
            self.core = self._new_core()
        _gradients.read(self.scan, self._watched.parameters, self._rows)
        if self._rows:
            self._rows.launch()
            if wait or self._protects:
                self._rows.finish(self.scan)
        if factor != 1.0:
            self.scan.multiply(factor)
        self._ranks.combine(self.scan)
        self.step.move(Phase.READ)
        # Numbers that are still on their way from a device are judged one step later.
        self.step.nonfinite = 0 if self._rows else self.scan.nonfinite()

    def _decide(self) -> list[float] | None:
        """Lets the core judge the step; gives a factor for each tensor if some are scaled."""
        seen = self._seen()
        if self._rows:
            self.step.move(Phase.DEFERRED)
            self._awaited = (self.step, seen)
            return None
        return self._judge(self.step, seen)

    def _seen(self) -> dict[str, Any]:
        rate = rate_of(self._watched.optimizers)
        if rate is not None and self.core is not None:
            rate *= self.core.learning_rate_factor()
        seen = self.passes.take_logged(self.step.nonfinite)
        seen["learning_rate"] = rate
        seen["calls"] = self.incidents.kept_of(self.passes.calls) if self._rows else None
        return seen

    def _judge(self, step: Step, seen: dict[str, Any]) -> list[float] | None:
        assert self.core is not None
        step.move(Phase.JUDGED)
        own_loss = mean(seen["losses"], step.nonfinite)
        inputs = self.passes.named_inputs(seen["inputs"])
        loss, step.nonfinite, inputs, targets = self._ranks.agree(
            own_loss, step.nonfinite, inputs, self.passes.numbers(seen["targets"])
        )
        decision = self.core.observe(
            step.number,
            self.scan,
            loss=loss,
            metric=None if seen["metric"] is None else float(seen["metric"]),
            learning_rate=seen["learning_rate"],
            trace=seen["trace"],
            inputs=inputs,
            targets=targets,
            clipped_to=step.clipped_to,
            constant_loss=seen["constant_loss"],
            gradient_is_nan=step.gradient_is_nan,
        )
        self._teller.log(step.number, loss, self.scan, self._watched.names)
        if self.core.wants_elasticities():
            self.core.observe_elasticities(self._elasticities(loss))
        if self.core.is_alarmed():
            self.after_alarm.look(self.core, step, loss, own_loss, inputs, seen)
            self.incidents.see_alarm(self, step, own_loss, seen["calls"])
        return None if decision is None else self._carry_out(step, decision)

    @torch.no_grad()
    def _elasticities(self, loss: float | None) -> list[float | None]:
        """The relative change of the loss for a relative change of each matrix, by its gradient."""
        scale = abs(loss or math.nan) * self.scaling.scale()
        # One that is multiplied at every time step has more by itself.
        repeated = self.passes.used_repeatedly()

        def elasticity(parameter: torch.Tensor) -> float | None:
            gradient = parameter.grad
            dense = gradient is not None and gradient.layout == torch.strided
            if (
                id(parameter) in repeated
                or not dense
                or parameter.dim() < 2
                or type(parameter.data) is not torch.Tensor
            ):
                return None
            product = float((parameter.detach().double() * gradient.double()).sum())
            found = abs(product) / scale
            return found if math.isfinite(found) else None

        return [elasticity(parameter) for parameter in self._watched.parameters]

    def _carry_out(self, step: Step, decision: Any) -> list[float] | None:
        if decision.stop and not self.should_stop:
            self.should_stop = True
            self._teller.warn(
                "nothing that can be done during the run has helped; stop the run and see "
                "guard.diagnosis()"
            )
        if decision.rewind is not None:
            self._leave_out()
            restored = self._snapshots.rewind(decision.rewind)
            if restored is not None:
                step.number = restored - 1
            return None
        if decision.action == "skip" or decision.stop:
            self._leave_out()
            self._snapshots.restore_calm()
            return None
        factors = [1.0] * len(self._watched.parameters)
        if decision.action == "scale-all":
            factors = [decision.factor] * len(factors)
        for index, factor in decision.factors:
            factors[index] = factor
        return factors

    def _leave_out(self) -> None:
        """Has this step left out."""
        self.step.is_left_out = True
        self.scan.release()

    def _before_update(self) -> None:
        assert self.core is not None
        number = self.step.number
        if self._protects and self.core.wants_snapshot(number):
            self._snapshots.take(number)
        # A closure makes further gradients, which nobody has judged.
        copies, measures = self.core.wants_of_update()
        copies = copies or (self._protects and self.update.evaluations > 0)
        self.update.before(number, self.scan, copies=copies, measures=measures)

    def _see_overflow(self) -> None:
        """Judges a step that a loss scaler leaves out, unless a lower scale may mend it."""
        if self.scaling.is_of_scale():
            self._skip_watching()
        else:
            self.step.is_left_out = True
            self._begin()

    def _skip_watching(self) -> None:
        """A loss scale that was too large: the step is left out by its own machinery."""
        self.step.move(Phase.UNWATCHED)
        self.passes.forget_losses()
        self.passes.end(keeps_calls=True)

    def _end(self, *, ends_passes: bool = True) -> None:
        """Measures the update and ends the step."""
        step, self.step = self.step, Step(self.step.number)
        self.scan.release()
        self.scaling.end()
        if step.phase is Phase.DEFERRED:
            self.passes.end_losses()
            self.step.number += 1
        if step.phase is not Phase.JUDGED or self.core is None:
            return
        was_undone = step.is_left_out
        if step.is_left_out:
            self.core.observe_update(None)
        elif self.update.after(self.core, self.scan, self._rate):
            was_undone = True
            self._snapshots.restore_calm()
        elif not step.nonfinite and self.core.finding_count() > self._teller.told:
            self.after_alarm.see_update(self.core)
        self._snapshots.keep_calm()
        if self.core.is_alarmed():
            if self.core.finding_count() > self._teller.told:
                self.after_alarm.see_time_steps(self.core)
            self.incidents.see_alarm(self, step, None, is_before=was_undone)
        self.step.number += 1
        if ends_passes:
            self._end_passes(self.step.number)
        self._teller.tell(self.core)

    def _end_passes(self, next_step: int) -> None:
        assert self.core is not None
        if self.passes.left.norm > 0.0:
            self.after_alarm.see_left(self.core)
            self._teller.warn(
                "the gradients of the step before are still there when backward() begins, and the new "
                "ones are added to them: call optimizer.zero_grad() in every step",
                once_for="left",
            )
        # What one optimizer leaves, the zero_grad of another may clear before it steps.
        if len(self._watched.optimizers) == 1:
            self.passes.left.begin(next_step, self._watched.parameters)
        self.passes.end()
        self.passes.arm(self.core, next_step)

    # --- the core and the state ------------------------------------------------------------------

    def core_or_new(self) -> Core:
        """The core's guard; before the first step one that has seen nothing."""
        return self.core if self.core is not None else self._new_core()

    def _new_core(self) -> Core:
        probes, watched = self.passes.probes, self._watched
        pairs = zip(watched.parameters, watched.names, strict=True)
        rows = [_layout.row(parameter, name, probes.owners) for parameter, name in pairs]
        dtype_max = probes.dtype_max or _layout.dtype_max(watched.parameters)
        return Core(rows, probes.layers, dtype_max=dtype_max, **self._options)

    def state(self) -> dict[str, Any]:
        """The entries of the guard's state."""
        self.settle()
        return {
            "version": _checkpoint.VERSION,
            "core": None if self.core is None else self.core.state(),
            "step": self.step.number,
            "should_stop": self.should_stop,
            **self.after_alarm.state(),
            **self.passes.state(has_core=self.core is not None),
        }

    def restore(self, state: Any, *, is_attached: bool) -> None:
        """Takes the entries of a state.

        Raises ``ValueError`` if it is no such state; everything then stays as it is.
        """
        entries = _checkpoint.checked(state)
        self.passes.probes.check_places(entries["modules"])
        core = None
        if entries["core"] is not None:
            core = Core.restored(entries["core"], self._watched.names, **self._options)
        elif entries["step"]:
            raise ValueError(
                f"state: got step {entries['step']} without the core's bytes, want both or "
                "neither; load what guard.state_dict() returned"
            )
        self.core = core
        self._teller.told = 0 if core is None else core.finding_count()
        self.step = Step(entries["step"])
        self.should_stop = entries["should_stop"]
        self.passes.restore(entries)
        self.after_alarm.restore(entries, core)
        self.update.forget()
        self._awaited = None
        self._snapshots.forget()
        if is_attached:
            self._snapshots.keep_calm()
            self.passes.resume(entries, core, self.step.number)
