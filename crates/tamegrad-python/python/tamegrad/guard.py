"""The guard of a torch training loop: hooks at the optimizer's step, over the core's decisions."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from . import _checkpoint, _checks, _clipping, _device, _gradients, _lag, _layout, _names, _ranks
from ._amp import Scaling
from ._buffers import CalmBuffers
from ._core import Guard as Core
from ._core import Scan
from ._hidden import HiddenGradients
from ._numbers import merged
from ._optimizers import Nesting, Newcomers
from ._passes import Passes, mean
from ._rate import Rate, rate_of
from ._snapshots import Snapshots
from ._telling import CallbackError, Teller
from ._update import UpdateWatch
from .diagnosis import Diagnosis, Finding

_live: weakref.WeakSet[Guard] = weakref.WeakSet()
"""The guards that watch something."""


def _safely(method):
    """What goes wrong in tamegrad does not stop the training: it is told, and the guard lets go of the
    run. With ``strict`` it is raised."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        if self._detached:
            return None
        records = torch.is_grad_enabled()
        try:
            # As `torch.no_grad` does, without its objects: this runs four times a step.
            torch._C._set_grad_enabled(False)
            return method(self, *args, **kwargs)
        except CallbackError as error:
            raise error.cause from None
        except Exception as error:
            self._fail(error)
            return None
        finally:
            torch._C._set_grad_enabled(records)

    return call


class Guard:
    """Watches the steps of a model's optimizers; made by :func:`tamegrad.watch`.

    At each step, before the optimizer runs, one pass reads all gradients where they lie. The core
    judges them, and in ``protect`` mode says what is done about it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        mode: str,
        trace_every: int,
        snapshot_every: int,
        snapshots_max: int,
        total_steps: int | None,
        scheduler: Any,
        scaler: Any,
        on_rewind: Callable[[int], None] | None,
        on_finding: Callable[[Finding], None] | None,
        loggers: Iterable[Callable[[int, dict[str, Any]], None]],
        log_every: int,
        process_group: Any,
        strict: bool,
    ) -> None:
        self.mode = mode
        self.should_stop = False
        """Whether all that can be done while the run goes on has been done in vain."""
        self.failure: str | None = None
        """Why watching has ended before the run, if an error inside tamegrad has ended it."""
        self._model = model
        self._optimizers = list(optimizers)
        self._parameters, self._tensor_names = _names.parameters_of(model, self._optimizers)
        self._slots = _layout.slots(self._optimizers)
        _let_go_of(self._parameters)
        self._options = {
            "mode": mode,
            "trace_every": trace_every,
            "snapshot_every": snapshot_every,
            "snapshots_max": snapshots_max,
            "planned_steps": total_steps,
        }
        self._strict = strict
        self._teller = Teller(on_finding, loggers, log_every)
        self._detached = False
        self._core: Core | None = None
        self._step = 0
        self._scan = Scan()
        self._rows: _device.Rows | None = _device.Rows() if self._has_device() else None
        self._scaling = Scaling(scaler, self._optimizers, self._parameters)
        self._ranks = _ranks.Ranks(model, self._parameters, process_group)
        if mode == "protect" and self._ranks.may_average_by_hand:
            self._teller.warn(
                "this process is one of several ranks and the model is not wrapped (DDP, FSDP2): if "
                "they average their gradients by hand, give process_group=torch.distributed.group."
                "WORLD to tamegrad.watch on every rank, so that all decide the same"
            )
        self._rate = Rate()
        self._passes = Passes(
            model, self._ranks, self._teller, watches=mode != "off", on_error=self._fail
        )
        self._culprits: list[int] = []
        self._culprits_sought = False
        self._ceiling = _clipping.Ceiling()

        # Where in a step the loop is.
        self._is_read = False
        self._is_decided = False
        self._took_away = False
        self._hidden = HiddenGradients()
        self._nonfinite = 0
        self._clipped_to: float | None = None
        self._stepped: set[int] = set()
        self._evaluations = 0
        self._deferred: tuple[int, Any] | None = None

        self._update = UpdateWatch(
            self._parameters,
            self._optimizers,
            ranks=self._ranks,
            scaling=self._scaling,
            samples=self._rows is None,
        )
        self._buffers = CalmBuffers(model if mode == "protect" else None)
        self._snapshot_of = (model, scheduler, scaler, on_rewind)
        self._snapshots = self._new_snapshots()
        self._handles: dict[int, list[Any]] = {}
        self._newcomers = Newcomers(self._adopt)
        self._nesting = Nesting()
        self._attach()

    # --- what the user calls -----------------------------------------------------------------

    def clip_(
        self, max_norm: float, *, loss: Any = None, error_if_nonfinite: bool = False
    ) -> torch.Tensor:
        """Clips all gradients by their global L2 norm, in place of ``clip_grad_norm_``.

        The factor is ``max_norm / norm`` where the norm is above ``max_norm``; otherwise nothing
        is written. The read is the same that the guard needs, so it costs no second one. A
        gradient that is not finite cannot be clipped (Inf times 0 is NaN): it is left as it is, and
        the step that follows is left out, with parameters and optimizer state as they were. Gradients
        that a ``GradScaler`` has scaled are divided by its scale first, as ``unscale_`` does.

        Returns the norm before clipping, of the finite elements, in f64 on the CPU.

        Raises ``ValueError`` for a limit that is negative or NaN.
        """
        limit = _clipping.limit("max_norm", max_norm)
        self.log(loss=loss)
        if self._detached:
            return torch.nn.utils.clip_grad_norm_(self._parameters, limit)
        norm = self._clip(lambda factors: self._scale(factors, limit), limit)
        if error_if_nonfinite and self._nonfinite:
            raise RuntimeError(f"{self._nonfinite} elements of the gradients are not finite")
        return norm

    def clip_value_(self, max_value: float, *, loss: Any = None) -> torch.Tensor:
        """Limits every element of the gradients, in place of ``clip_grad_value_``.

        It bends the direction of the gradient; :meth:`clip_` does not. What holds there of
        gradients that are not finite and of the norm that is returned holds here.

        Raises ``ValueError`` for a limit that is negative or NaN.
        """
        largest = _clipping.limit("max_value", max_value)
        self.log(loss=loss)
        if self._detached:
            norm = self._norm_by_torch()
            _clipping.by_value(self._parameters, largest)
            return norm

        def clip(factors: list[float] | None) -> None:
            self._scale(factors, math.inf)
            _clipping.by_value(self._parameters, largest)

        elements = sum(parameter.numel() for parameter in self._parameters)
        return self._clip(clip, largest * math.sqrt(elements))

    def clip_units_(
        self,
        ratio: float = 0.01,
        *,
        eps: float = 1e-3,
        skip: Iterable[nn.Module] = (),
        loss: Any = None,
    ) -> torch.Tensor:
        """Adaptive gradient clipping (Brock et al. 2021): the gradient of each unit, a row of a
        weight ``[out, in, ...]`` or a whole vector, is scaled to a norm of at most ``ratio`` times
        that of its weights, which count as ``eps`` at least.

        ``skip`` names modules that are left alone: the last layer should be among them (same
        source). What holds in :meth:`clip_` of gradients that are not finite and of the norm that
        is returned holds here.

        Raises ``ValueError`` for a number that is negative or NaN.
        """
        ratio, eps = _clipping.limit("ratio", ratio), _clipping.limit("eps", eps)
        self.log(loss=loss)
        skipped = {id(parameter) for module in skip for parameter in module.parameters()}
        clipped = [p for p in self._parameters if id(p) not in skipped]
        if self._detached:
            norm = self._norm_by_torch()
            _clipping.by_unit(clipped, ratio, eps)
            return norm

        def clip(factors: list[float] | None) -> None:
            self._scale(factors, math.inf)
            _clipping.by_unit(clipped, ratio, eps)

        return self._clip(clip, None)

    def step(self, *, loss: Any = None) -> bool:
        """Takes in a step whose update is made by hand, for a guard that was given no optimizer; says
        whether the update shall be made.

        Call it after the backward pass and before the update::

            loss.backward()
            if guard.step(loss=loss):
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.1 * parameter.grad

        It is always true in observe mode. In protect mode it is false where the step shall be left out,
        and gradients may have been scaled.

        Raises ``ValueError`` where the guard was given an optimizer.
        """
        if self._optimizers:
            raise ValueError(
                "guard.step() is for updates by hand; this guard was given an optimizer, whose step "
                "it sees by itself"
            )
        self.log(loss=loss)
        return self._step_by_hand() is not False

    def log(
        self,
        *,
        loss: Any = None,
        metric: Any = None,
        inputs: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
    ) -> None:
        """Tells the guard what it cannot see: the training loss, a held-out metric (higher is
        better), regression targets.

        Called before ``optimizer.step()`` the loss counts for that step, called after it for the
        next. Of several, of micro-batches whose gradients are accumulated, the mean counts. Losses
        that the model's output holds, as those of Transformers do, are seen without. ``inputs`` are
        needed only where the data is not what the model is called with.

        Raises ``TypeError`` for what is no number or tensor, and ``ValueError`` for a loss of several
        elements; the guard goes on as before.
        """
        _checks.number("loss", loss)
        _checks.number("metric", metric)
        _checks.tensor("inputs", inputs)
        _checks.tensor("targets", targets)
        self._log(loss, metric, inputs, targets)

    @_safely
    def _log(self, loss: Any, metric: Any, inputs: Any, targets: Any) -> None:
        self._passes.log(loss, metric, inputs, targets)

    @property
    def culprit_ranks(self) -> list[int]:
        """Of several ranks, those whose own share of the batch brought the first alarm: its loss,
        inputs or the gradient at the model's output was not finite, or far above the others'.
        Empty while there is no alarm, and where no rank stands out."""
        return self._culprits

    @property
    def sees_loss(self) -> bool:
        """Whether the model's output holds the loss, so that it need not be logged."""
        return self._passes.tells_loss

    @property
    def step_number(self) -> int:
        """Number of the coming step."""
        return self._step

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the finite elements of the gradients that were read last."""
        return self._scan.norm()

    def diagnosis(self) -> Diagnosis:
        """What was seen so far: verdict, onset, origin, causes, signs, gains, remedies."""
        self._settle_deferred()
        notes = [] if self._ceiling.reached_at is None else [self._ceiling.words()]
        if self._passes.sees_nothing:
            notes.append(
                "no call of the model was seen, so nothing is known of its data and layers: compile it "
                "before tamegrad.watch, and give watch what the loop calls"
            )
        return Diagnosis(self._core_or_new(), failure=self.failure, notes=notes)

    def findings(self) -> list[Finding]:
        """Every sign that fired, oldest first."""
        return [Finding(*row) for row in self._core_or_new().findings(0)]

    def actions(self) -> list[tuple[int, Any]]:
        """What was done to the run, each with its step; empty in observe mode."""
        return self._core_or_new().actions()

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """The guard's state, to be kept with a checkpoint of the model and the optimizers.

        It holds what was seen, found and done, the baselines and signs, in protect mode the
        learning rate, and what was logged for the coming step: bytes, numbers, names and lists of
        them, under the same keys at any time, so that ``torch.save``,
        ``torch.load(weights_only=True)`` and ``torch.distributed.checkpoint`` take it. Snapshots
        to rewind to are not in it.

        Call it between two steps. Among several ranks all guards have the same state, but for what
        was logged for the coming step.
        """
        self._settle_deferred()
        return {
            "version": _checkpoint.VERSION,
            "core": None if self._core is None else self._core.state(),
            "step": self._step,
            "should_stop": self.should_stop,
            "culprits": list(self._culprits),
            "culprits_sought": self._culprits_sought,
            **self._passes.state(has_core=self._core is not None),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the guard of :meth:`state_dict` stood: the coming steps are judged as if
        the run had not been interrupted.

        Call it when the model and the optimizers have the checkpoint's state, and before the next
        forward pass. Mode and options are those of this guard. Until it takes its first snapshot
        there is nothing to rewind to.

        Raises ``ValueError`` if it is no such state, is damaged, was written in another format, or
        if the model has other parameters or modules; the guard then stays as it is.
        """
        entries = _checkpoint.checked(state)
        self._passes.probes.check_places(entries["modules"])
        core = None
        if entries["core"] is not None:
            core = Core.restored(entries["core"], self._tensor_names, **self._options)
        elif entries["step"]:
            raise ValueError(
                f"state: got step {entries['step']} without the core's bytes, want both or "
                "neither; load what guard.state_dict() gave"
            )
        self._core = core
        self._teller.told = 0 if core is None else core.finding_count()
        self._step = entries["step"]
        self.should_stop = entries["should_stop"]
        self._culprits = list(entries["culprits"])
        self._culprits_sought = entries["culprits_sought"]
        self._passes.restore(entries)
        self._is_read = self._is_decided = self._took_away = False
        self._update.forget()
        self._stepped = set()
        self._deferred = None
        self._snapshots.forget()
        if not self._detached:
            self._buffers.keep()
            self._passes.resume(entries, core, self._step)

    def detach(self) -> None:
        """Takes every hook away. The diagnosis stays."""
        self._detached = True
        _live.discard(self)
        for handles in self._handles.values():
            for handle in handles:
                handle.remove()
        self._handles = {}
        self._hidden.show()
        self._newcomers.detach()
        self._scaling.detach()
        self._passes.detach()
        self._rate.restore()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    # --- hooks -------------------------------------------------------------------------------

    def _attach(self) -> None:
        _live.add(self)
        self._passes.attach()
        self._scaling.attach()
        self._newcomers.know(self._optimizers)
        self._newcomers.attach()
        for optimizer in self._optimizers:
            self._hook(optimizer)

    def _hook(self, optimizer: torch.optim.Optimizer) -> None:
        self._handles[id(optimizer)] = [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict):
        is_off = self._detached or self._update.is_repeating
        if is_off or not self._nesting.enter(optimizer):
            return None
        self._evaluations = 0
        # The hook's own first argument is the optimizer.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._open(optimizer)
            return None

        @functools.wraps(closure)
        def watched():
            loss = closure()
            self._evaluations += 1
            if self._evaluations == 1:
                self._open_with(optimizer, loss)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        is_off = self._detached or self._update.is_repeating
        if not is_off and self._nesting.leave(optimizer):
            self._close(optimizer)

    def _fail(self, error: Exception) -> None:
        """Ends the watching after an error inside tamegrad."""
        if self._strict:
            raise error
        self.failure = (
            f"tamegrad stopped watching at step {self._step}: {type(error).__name__}: {error}"
        )
        self._teller.fail(f"{self.failure}; the training goes on without it")
        self.detach()

    # --- other parameters, other optimizers --------------------------------------------------------

    @_safely
    def _adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes an optimizer that steps on our parameters in the place of those that did before."""
        slots = {id(p) for group in optimizer.param_groups for p in group["params"]}
        gone = self._take_successors_in(slots)
        if not self._optimizers or slots.isdisjoint(map(id, self._parameters)):
            return
        for old in list(self._optimizers):
            held = {id(p) for group in old.param_groups for p in group["params"]}
            if not held.isdisjoint(slots | gone):
                self._optimizers.remove(old)
                for handle in self._handles.pop(id(old), []):
                    handle.remove()
        self._optimizers.append(optimizer)
        self._stepped = set()
        self._hook(optimizer)
        self._take_newcomers_in()

    def _take_successors_in(self, slots: set[int]) -> set[int]:
        """Watches parameters of these ids that have come under the names of ours (``assign=True``, layers
        made anew); gives the ids of those that are gone."""
        current = {_names.plain(name): p for name, p in self._model.named_parameters()}
        gone = set()
        for index, (parameter, name) in enumerate(
            zip(self._parameters, self._tensor_names, strict=True)
        ):
            successor = current.get(name, parameter)
            if successor is not parameter and id(successor) in slots:
                self._parameters[index] = successor
                gone.add(id(parameter))
        return gone

    def _check_parameters(self) -> None:
        if _layout.slots(self._optimizers) != self._slots:
            self._take_newcomers_in()

    def _take_newcomers_in(self) -> None:
        """Watches the parameters that the optimizers hold by now as well."""
        self._slots = _layout.slots(self._optimizers)
        known = set(map(id, self._parameters))
        pairs = zip(*_names.parameters_of(self._model, self._optimizers), strict=True)
        added = [(parameter, name) for parameter, name in pairs if id(parameter) not in known]
        self._parameters += [parameter for parameter, _ in added]
        self._tensor_names += [name for _, name in added]
        if added and self._core is not None:
            owners = self._passes.probes.owners
            self._core.add_tensors([_layout.row(p, name, owners) for p, name in added])
        self._ranks.know(self._parameters)
        self._update.forget()
        self._snapshots = self._new_snapshots()

    def _new_snapshots(self) -> Snapshots:
        snapshots = Snapshots(self._parameters, self._optimizers, *self._snapshot_of)
        snapshots.most = self._options["snapshots_max"]
        return snapshots

    # --- one step ----------------------------------------------------------------------------

    def _norm_by_torch(self) -> torch.Tensor:
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _clip(
        self, clip: Callable[[list[float] | None], None], bound: float | None
    ) -> torch.Tensor:
        norm = self._clip_safely(clip, bound)
        return torch.tensor(math.nan if norm is None else norm, dtype=torch.float64)

    @_safely
    def _clip_safely(
        self, clip: Callable[[list[float] | None], None], bound: float | None
    ) -> float:
        self._hidden.show()
        self._scaling.unscale()
        if self._stepped:
            self._end()
        self._is_read = self._is_decided = False
        self._read(wait=True)
        # The norm that the optimizer will see at most.
        self._clipped_to = bound
        norm = self._scan.norm()
        if self._nonfinite:
            # Judged when the step really comes: after an overflow a GradScaler leaves it out.
            self._leave_out()
            return norm
        factors = self._decide() if self.mode == "protect" else None
        if not self._took_away:
            clip(factors)
        return norm

    @_safely
    def _open_with(self, optimizer: torch.optim.Optimizer, loss: Any) -> None:
        """As ``_open``, with the loss that a closure has given."""
        if isinstance(loss, (torch.Tensor, float)):
            self._passes.log(loss, None, None, None)
        self._open(optimizer)

    @_safely
    def _open(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the first optimizer's update of a step: read, decide, carry out."""
        self._rate.restore()
        self._hidden.show()
        if id(optimizer) in self._stepped:
            self._end()
        first = not self._stepped
        self._stepped.add(id(optimizer))
        if first:
            if self._scaling.overflowed():
                self._skip_watching()
            else:
                self._begin_step()
        if self._took_away:
            self._hidden.hide(optimizer)
        if self._core is not None and self.mode == "protect":
            self._rate.lower(optimizer, self._core.learning_rate_factor())

    def _begin_step(self) -> None:
        if not self._is_read:
            self._read(self._scaling.factor())
            if not self._rows:
                self._ceiling.see(self._step, self._scan.norm())
                self._clipped_to = self._ceiling.bound()
        if not self._is_decided:
            factors = self._decide()
            if not self._took_away and factors is not None:
                self._scale(factors, math.inf)
        if not self._took_away:
            self._before_update()

    @_safely
    def _step_by_hand(self) -> bool:
        if self._stepped:
            self._end(ends_passes=False)
        self._stepped.add(0)
        self._begin_step()
        # The update is measured when the next step comes; this step's passes are over.
        self._end_passes(self._step + 1)
        return not self._took_away

    @_safely
    def _close(self, optimizer: torch.optim.Optimizer) -> None:
        """After an optimizer's update; after the last one's the step is over."""
        self._rate.restore()
        self._hidden.show()
        if len(self._stepped) == len(self._optimizers):
            self._end()

    def _end(self, *, ends_passes: bool = True) -> None:
        """Measures the update and ends the step."""
        self._stepped = set()
        self._scan.release()
        self._scaling.end()
        self._clipped_to = None
        was_read, self._is_read, self._is_decided = self._is_read, False, False
        if not was_read or self._core is None or self._deferred is not None:
            self._took_away = False
            if self._deferred is not None:
                self._step += 1
            return
        if self._took_away:
            self._took_away = False
            self._core.observe_update(None)
        elif self._update.after(self._core, self._scan, self._rate, evaluations=self._evaluations):
            self._buffers.restore()
        self._buffers.keep()
        self._step += 1
        if ends_passes:
            self._end_passes(self._step)
        self._teller.tell(self._core)

    def _end_passes(self, next_step: int) -> None:
        assert self._core is not None
        self._passes.end()
        self._passes.arm(self._core, next_step)

    def _read(self, factor: float = 1.0, wait: bool = False) -> None:
        self._settle_deferred()
        self._passes.step_in_this_thread()
        self._check_parameters()
        self._took_away = False
        self._clipped_to = None
        self._passes.take_trace(self._core, self._step)
        # The first pass has shown the layers.
        if self._core is None:
            self._core = self._new_core()
        _gradients.read(self._scan, self._parameters, self._rows)
        if self._rows:
            self._rows.launch()
            if wait or self.mode == "protect":
                self._rows.finish(self._scan)
        if factor != 1.0:
            self._scan.multiply(factor)
        self._ranks.combine(self._scan)
        self._is_read = True
        # Numbers that are still on their way from a device are judged one step later.
        self._nonfinite = 0 if self._rows else self._scan.nonfinite()

    def _decide(self) -> list[float] | None:
        """Lets the core judge the step; gives a factor for each tensor if some are scaled."""
        self._is_decided = True
        if self._rows:
            self._deferred = (self._step, self._observation())
            return None
        return self._judge(self._step, self._observation())

    def _observation(self) -> dict[str, Any]:
        rate = rate_of(self._optimizers)
        if rate is not None and self._core is not None:
            rate *= self._core.learning_rate_factor()
        seen = self._passes.take_logged(self._nonfinite)
        seen["learning_rate"] = rate
        return seen

    def _judge(self, step: int, seen: dict[str, Any]) -> list[float] | None:
        assert self._core is not None
        own_loss = mean(seen["losses"], self._nonfinite)
        inputs = self._passes.named_inputs(seen["inputs"])
        loss, self._nonfinite, inputs, targets = self._ranks.agree(
            own_loss, self._nonfinite, inputs, self._passes.numbers(seen["targets"])
        )
        decision = self._core.observe(
            step,
            self._scan,
            loss=loss,
            metric=None if seen["metric"] is None else float(seen["metric"]),
            learning_rate=seen["learning_rate"],
            trace=seen["trace"],
            inputs=inputs,
            targets=targets,
            clipped_to=self._clipped_to,
        )
        self._teller.log(step, loss, self._scan, self._tensor_names)
        if self._core.is_alarmed():
            self._look_into_alarm(own_loss, inputs)
        return None if decision is None else self._carry_out(decision)

    def _look_into_alarm(self, loss: float | None, inputs: Any) -> None:
        """Measures what is worth its time after an alarm only."""
        assert self._core is not None
        if self._core.wants_lag() and not self._culprits_sought:
            self._culprits_sought = True
            largest = merged(numbers for _, numbers in inputs)
            self._culprits = self._ranks.culprits(loss, largest, self._passes.calls)
        if self._core.wants_repeated_trace():
            # The pass is repeated with a look at every layer, on the same inputs.
            trace = self._passes.repeated()
            if trace is not None:
                self._core.observe_trace(trace)
        if self._core.wants_lag():
            self._core.observe_lag(_lag.second_moment_lag(self._parameters, self._optimizers))
        broken = self._passes.broken_state() if self._nonfinite else None
        if broken is not None:
            self._teller.warn(
                f"step {self._step}: the state `{broken}` that the loop carries from pass to pass is "
                "not finite, and every pass that is given it ends in NaN: begin it anew",
                once_for="carried",
            )

    def _carry_out(self, decision: Any) -> list[float] | None:
        if decision.stop and not self.should_stop:
            self.should_stop = True
            self._teller.warn(
                "nothing that can be done while the run goes on has helped: stop it and see "
                "guard.diagnosis()"
            )
        if decision.rewind is not None:
            self._leave_out()
            restored = self._snapshots.rewind(decision.rewind)
            if restored is not None:
                self._step = restored - 1
            return None
        if decision.action == "skip" or decision.stop:
            self._leave_out()
            self._buffers.restore()
            return None
        factors = [1.0] * len(self._parameters)
        if decision.action == "scale-all":
            factors = [decision.factor] * len(self._parameters)
        for index, factor in decision.factors:
            factors[index] = factor
        return factors

    def _leave_out(self) -> None:
        """Has this step left out."""
        self._took_away = True
        self._scan.release()

    def _scale(self, factors: list[float] | None, max_norm: float) -> None:
        """Scales each tensor by its factor and all of them so that the norm is in bounds."""
        if factors is None:
            norm = self._scan.norm()
            if norm > max_norm:
                _gradients.scale(self._scan, self._parameters, max_norm / norm)
            return
        norms = [norm * factor for norm, factor in zip(self._scan.norms(), factors, strict=True)]
        norm = math.hypot(*(norm for norm in norms if norm == norm))
        clip = max_norm / norm if norm > max_norm else 1.0
        _gradients.scale(self._scan, self._parameters, [factor * clip for factor in factors])

    def _before_update(self) -> None:
        assert self._core is not None
        protects = self.mode == "protect"
        if protects and self._core.wants_snapshot(self._step):
            self._snapshots.take(self._step)
        # A closure makes further gradients, which nobody has judged.
        copies = protects and (self._core.wants_copy() or self._evaluations > 0)
        self._update.before(self._step, self._scan, copies=copies)

    # --- the rest ----------------------------------------------------------------------------

    def _settle_deferred(self) -> None:
        """Judges the step whose numbers were still on their way from the device."""
        if self._deferred is None or self._rows is None:
            return
        (step, seen), self._deferred = self._deferred, None
        self._rows.finish(self._scan)
        if not seen["losses"]:
            seen["losses"] = self._passes.take_losses()
        self._nonfinite = self._scan.nonfinite()
        self._judge(step, seen)
        assert self._core is not None
        self._core.observe_update(None)
        self._teller.tell(self._core)

    def _skip_watching(self) -> None:
        """A loss scale that was too large: the step is left out by its own machinery."""
        self._is_read = False
        self._passes.forget_losses()
        self._passes.end(keeps_calls=True)

    def _new_core(self) -> Core:
        probes = self._passes.probes
        pairs = zip(self._parameters, self._tensor_names, strict=True)
        rows = [_layout.row(parameter, name, probes.owners) for parameter, name in pairs]
        dtype_max = probes.dtype_max or _layout.dtype_max(self._parameters)
        return Core(rows, probes.layers, dtype_max=dtype_max, **self._options)

    def _core_or_new(self) -> Core:
        return self._core if self._core is not None else self._new_core()

    def _has_device(self) -> bool:
        return any(p.device.type not in ("cpu", "meta") for p in self._parameters)


def _let_go_of(parameters: list[torch.Tensor]) -> None:
    """Ends the watching of guards that were there for some of these parameters: a cell of a notebook
    that is run again."""
    wanted = set(map(id, parameters))
    for guard in list(_live):
        if not wanted.isdisjoint(map(id, guard._parameters)):
            guard.detach()
