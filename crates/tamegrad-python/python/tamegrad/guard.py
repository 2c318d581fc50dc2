"""The guard of a torch training loop: hooks at the optimizer's step, over the core's decisions."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from . import _checkpoint, _clipping, _device, _gradients, _lag, _names, _ranks
from ._amp import Scaling
from ._buffers import CalmBuffers
from ._core import Guard as Core
from ._core import Sampler, Scan, Updates
from ._probes import Inputs, Probes, first_float
from ._rate import Rate, rate_of
from ._snapshots import Snapshots
from ._state import StateCopy
from ._telling import Teller
from .diagnosis import Diagnosis, Finding

_SAMPLE_EVERY_STEP = 128
"""Steps at the start whose updates are all estimated, for the baselines to settle."""
_SAMPLE_EVERY = 8
"""Steps between two estimates after that."""


_LOSSES_MAX = 1024
"""Losses of micro-batches that are kept for one step."""
_REPLAYS_MAX = 5
"""Calm passes that are run again because hooks cannot see them."""


def _safely(method):
    """What goes wrong in tamegrad does not stop the training: it is shown once, and the guard
    lets go of the run. With ``strict`` it is raised."""

    @functools.wraps(method)
    def call(self, *args, **kwargs):
        if self._detached:
            return None
        try:
            with torch.no_grad():
                return method(self, *args, **kwargs)
        except Exception as error:
            if self._strict:
                raise
            self._teller.warn(f"tamegrad has stopped watching: {type(error).__name__}: {error}")
            self.detach()
            return None

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
        self._model = model
        self._optimizers = list(optimizers)
        self._parameters, self._tensor_names = _names.parameters_of(model, self._optimizers)
        self._slots = sum(len(g["params"]) for o in self._optimizers for g in o.param_groups)
        self._options = {
            "mode": mode,
            "trace_every": trace_every,
            "snapshot_every": snapshot_every,
            "snapshots_max": snapshots_max,
            "planned_steps": total_steps,
        }
        self._trace_every = trace_every
        self._strict = strict
        self._teller = Teller(on_finding, loggers, log_every)
        self._detached = False
        # Zeros at the start have no size that an update could be held against (LoRA's B).
        self._is_matrix = [_is_matrix(parameter) for parameter in self._parameters]

        self._core: Core | None = None
        self._step = 0
        self._scan, self._batch = Scan(), Scan()
        self._updates, self._sampler = Updates(), Sampler()
        self._sampled = False
        self._rows: _device.Rows | None = _device.Rows() if self._has_device() else None
        self._scaling = Scaling(scaler, self._optimizers)
        self._ranks = _ranks.Ranks(model, self._parameters, process_group)
        self._rate = Rate()
        self._probes = Probes(model)
        self._is_compiled = _is_compiled(model)
        self._culprits: list[int] = []
        self._culprits_sought = False
        self._trace: Any = None
        self._replays = 0
        self._inputs: Inputs | None = None
        self._holds_broken = False
        """Whether the inputs are kept that made a loss that is not finite."""
        self._losses: list[Any] = []
        self._model_loss: torch.Tensor | None = None
        self._metric: Any = None
        self._data: torch.Tensor | _device.Numbers | None = None
        self._targets: torch.Tensor | _device.Numbers | None = None
        self._ceiling = _clipping.Ceiling()

        # Where in a step the loop is.
        self._is_read = False
        self._is_decided = False
        self._took_away = False
        self._nonfinite = 0
        self._stepped: set[int] = set()
        self._in_closure = False
        self._re_stepping = False
        self._deferred: tuple[int, Any] | None = None

        self._before: StateCopy | None = None
        self._buffers = CalmBuffers(model if mode == "protect" else None)
        self._snapshots = Snapshots(
            self._parameters, self._optimizers, list(model.buffers()), scheduler, scaler, on_rewind
        )
        self._snapshots.most = snapshots_max
        self._handles: list[Any] = []
        self._attach()

    # --- what the user calls -----------------------------------------------------------------

    def clip_(
        self, max_norm: float, *, loss: Any = None, error_if_nonfinite: bool = False
    ) -> torch.Tensor:
        """Clips all gradients by their global L2 norm, in place of ``clip_grad_norm_``.

        The factor is ``max_norm / norm`` where the norm is above ``max_norm``; otherwise nothing
        is written. The read is the same that the guard needs, so it costs no second one. A
        gradient that is not finite cannot be clipped (Inf times 0 is NaN): then all gradients are
        taken away, and the step changes neither parameters nor optimizer state.

        Returns the norm before clipping, of the finite elements, in f64 on the CPU.
        """
        self.log(loss=loss)
        if self._detached:
            return torch.nn.utils.clip_grad_norm_(self._parameters, max_norm)
        limit = float(max_norm)
        norm = self._clip(lambda factors: self._scale(factors, limit))
        if error_if_nonfinite and self._nonfinite:
            raise RuntimeError(f"{self._nonfinite} elements of the gradients are not finite")
        return norm

    def clip_value_(self, max_value: float, *, loss: Any = None) -> torch.Tensor:
        """Limits every element of the gradients, in place of ``clip_grad_value_``.

        It bends the direction of the gradient; :meth:`clip_` does not. What holds there of
        gradients that are not finite and of the norm that is returned holds here.

        Raises ``ValueError`` for a limit that is negative or NaN.
        """
        self.log(loss=loss)
        largest = _clipping.limit("max_value", max_value)
        if self._detached:
            norm = self._norm_by_torch()
            _clipping.by_value(self._parameters, largest)
            return norm

        def clip(factors: list[float] | None) -> None:
            self._scale(factors, math.inf)
            _clipping.by_value(self._parameters, largest)

        return self._clip(clip)

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
        self.log(loss=loss)
        ratio, eps = _clipping.limit("ratio", ratio), _clipping.limit("eps", eps)
        skipped = {id(parameter) for module in skip for parameter in module.parameters()}
        clipped = [p for p in self._parameters if id(p) not in skipped]
        if self._detached:
            norm = self._norm_by_torch()
            _clipping.by_unit(clipped, ratio, eps)
            return norm

        def clip(factors: list[float] | None) -> None:
            self._scale(factors, math.inf)
            _clipping.by_unit(clipped, ratio, eps)

        return self._clip(clip)

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
        next. Of several, of micro-batches whose gradients are accumulated, the mean counts. A loss
        that the model's output holds, as those of Transformers do, is seen without. ``inputs`` are
        needed only where the model's own first float input is not the data.
        """
        if loss is not None:
            loss = loss.detach() if isinstance(loss, torch.Tensor) else loss
            self._losses = [*self._losses[1 - _LOSSES_MAX :], loss]
            self._holds_broken |= self._inputs is not None and _is_broken(loss)
        if metric is not None:
            self._metric = metric.detach() if isinstance(metric, torch.Tensor) else metric
        if targets is not None and targets.is_floating_point():
            self._targets = targets.detach()
        if inputs is not None:
            self._data = inputs.detach()

    @property
    def culprit_ranks(self) -> list[int]:
        """Of several ranks, those whose own share of the batch brought the first alarm: its loss,
        inputs or the gradient at the model's output was not finite, or far above the others'.
        Empty while there is no alarm, and where no rank stands out."""
        return self._culprits

    @property
    def step(self) -> int:
        """Number of the coming step."""
        return self._step

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the finite elements of the gradients that were read last."""
        return self._scan.norm()

    def diagnosis(self) -> Diagnosis:
        """What was seen so far: verdict, onset, origin, causes, signs, gains, remedies."""
        self._settle_deferred()
        return Diagnosis(self._core_or_new())

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
        modules, calls = self._probes.places() if self._core is not None else ([], [])
        return {
            "version": _checkpoint.VERSION,
            "core": None if self._core is None else self._core.state(),
            "step": self._step,
            "should_stop": self.should_stop,
            "modules": modules,
            "calls": calls,
            "replays": self._replays,
            "culprits": list(self._culprits),
            "culprits_sought": self._culprits_sought,
            "loss": _mean(self._losses, 0),
            "metric": None if self._metric is None else float(self._metric),
            "inputs": self._logged_numbers(self._data),
            "targets": self._logged_numbers(self._targets),
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
        self._probes.check_places(entries["modules"])
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
        self._replays = entries["replays"]
        self._culprits = list(entries["culprits"])
        self._culprits_sought = entries["culprits_sought"]
        self._losses = [] if entries["loss"] is None else [entries["loss"]]
        self._metric = entries["metric"]
        self._data, self._targets = (
            None if numbers is None else tuple(numbers)
            for numbers in (entries["inputs"], entries["targets"])
        )
        self._is_read = self._is_decided = self._took_away = self._sampled = False
        self._stepped = set()
        self._deferred = None
        self._inputs = None
        self._snapshots.forget()
        if not self._detached:
            self._buffers.keep()
            self._resume_probes(entries["modules"], entries["calls"])

    def _resume_probes(self, modules: list[str], calls: list[int]) -> None:
        """Has the hooks of the coming pass in place if the guard wants them there."""
        self._probes.restore(modules, calls, fixed=self._core is not None)
        if self._core is not None:
            self._arm()
        elif self.mode != "off" and not self._is_compiled:
            self._probes.arm()

    def _logged_numbers(self, logged: torch.Tensor | _device.Numbers | None) -> Any:
        numbers = None if logged is None else _numbers(self._batch, logged)
        return None if numbers is None else list(numbers)

    def detach(self) -> None:
        """Takes every hook away. The diagnosis stays."""
        self._detached = True
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._probes.disarm()
        self._rate.restore()
        self._inputs = None

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    # --- hooks -------------------------------------------------------------------------------

    def _attach(self) -> None:
        root = self._probes.model
        hooked = self._model if type(self._model).__name__ == "OptimizedModule" else root
        self._handles += [
            hooked.register_forward_pre_hook(self._enter_model, with_kwargs=True),
            hooked.register_forward_hook(self._leave_model),
        ]
        for optimizer in self._optimizers:
            self._handles += [
                optimizer.register_step_pre_hook(self._before_step),
                optimizer.register_step_post_hook(self._after_step),
            ]
        if self.mode != "off" and not self._is_compiled:
            self._probes.arm()

    def _enter_model(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or self._detached:
            return
        # The pass of a micro-batch whose loss is broken is the one to look into.
        if torch._C._current_graph_task_id() == -1 and not self._holds_broken:
            self._inputs = Inputs(args, kwargs)

    def _leave_model(self, module: nn.Module, args: tuple, output: Any) -> None:
        if torch.compiler.is_compiling() or not torch.is_grad_enabled() or self._detached:
            return
        inputs = self._inputs
        self._model_loss = _loss_in(output)
        tensor = first_float(output)
        if (
            inputs is not None
            and not self._holds_broken
            and tensor is not None
            and tensor.requires_grad
        ):

            def keep(gradient: torch.Tensor) -> None:
                inputs.output_gradient = gradient.detach()

            tensor.register_hook(keep)

    def _before_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict):
        if self._detached or self._re_stepping:
            return None
        # The hook's own first argument is the optimizer.
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._open(optimizer)
            return None
        calls = iter(range(1 << 62))

        @functools.wraps(closure)
        def watched():
            loss = closure()
            if next(calls) == 0:
                if isinstance(loss, (torch.Tensor, float)):
                    self.log(loss=loss)
                self._open(optimizer)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": watched}
        return (args[0], watched, *args[2:]), kwargs

    def _after_step(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        if not self._detached and not self._re_stepping:
            self._close(optimizer)

    # --- one step ----------------------------------------------------------------------------

    def _norm_by_torch(self) -> torch.Tensor:
        return nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _clip(self, clip: Callable[[list[float] | None], None]) -> torch.Tensor:
        norm = self._clip_safely(clip)
        return torch.tensor(math.nan if norm is None else norm, dtype=torch.float64)

    @_safely
    def _clip_safely(self, clip: Callable[[list[float] | None], None]) -> float:
        self._scaling.unscale()
        if self._stepped:
            self._end()
        self._is_read = self._is_decided = False
        self._read(wait=True)
        norm = self._scan.norm()
        if self._nonfinite:
            # Judged when the step really comes: after an overflow a GradScaler leaves it out.
            self._take_away()
            return norm
        factors = self._decide() if self.mode == "protect" else None
        if not self._took_away:
            clip(factors)
        return norm

    @_safely
    def _open(self, optimizer: torch.optim.Optimizer) -> None:
        """Before the first optimizer's update of a step: read, decide, carry out."""
        self._rate.restore()
        if id(optimizer) in self._stepped:
            self._end()
        first = not self._stepped
        self._stepped.add(id(optimizer))
        if first:
            if self._scaling.overflowed():
                self._skip_watching()
                return
            if not self._is_read:
                self._read(self._scaling.factor())
                if not self._rows and self._ceiling.reached(self._scan.norm()):
                    self._teller.warn(
                        f"the gradients come clipped to a norm of {self._ceiling.norm:.4g}: tamegrad "
                        "sees no norm above it; call guard.clip_ in place of clip_grad_norm_"
                    )
            if not self._is_decided:
                factors = self._decide()
                if not self._took_away and factors is not None:
                    self._scale(factors, math.inf)
            if not self._took_away:
                self._before_update()
        if self._core is not None and self.mode == "protect":
            self._rate.lower(optimizer, self._core.learning_rate_factor())

    @_safely
    def _close(self, optimizer: torch.optim.Optimizer) -> None:
        """After an optimizer's update; after the last one's the step is over."""
        self._rate.restore()
        if len(self._stepped) == len(self._optimizers):
            self._end()

    def _end(self) -> None:
        """Measures the update and ends the step."""
        self._stepped = set()
        self._scan.release()
        was_read, self._is_read, self._is_decided = self._is_read, False, False
        if not was_read or self._core is None or self._deferred is not None:
            self._took_away = False
            if self._deferred is not None:
                self._step += 1
            return
        if self._took_away:
            self._took_away = False
            self._core.observe_update(None)
        else:
            self._after_update()
        self._buffers.keep()
        self._teller.tell(self._core)
        self._step += 1
        # The gradient at the output, of a language model's logits, is large.
        self._inputs, self._holds_broken = None, False
        self._arm()

    def _read(self, factor: float = 1.0, wait: bool = False) -> None:
        self._settle_deferred()
        self._check_parameters()
        self._took_away = False
        self._take_trace()
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

    def _take_trace(self) -> None:
        """What hooks saw in this pass. The core is made when the first has shown the layers."""
        armed = self._probes.armed
        self._trace = self._ranks.combine_trace(self._probes.collect()) if armed else None
        if self._trace is not None and self._holds_broken and self._ranks.size == 1:
            # Hooks see the first micro-batch of a step. Another one is broken, and is run again.
            if self._trace.first_nonfinite_output() is None:
                self._trace = None
        if self._trace is None and self._wants_replay() and self._inputs is not None:
            self._replays += 1
            self._trace = self._ranks.combine_trace(self._repeat(self._inputs))
        if self._core is None:
            self._core = self._new_core()

    def _wants_replay(self) -> bool:
        """Whether a pass that hooks cannot see, of a compiled model, is run again without
        compiling: a few times, for a history of gains."""
        if self.mode == "off" or self._replays >= _REPLAYS_MAX:
            return False
        if self._core is None:
            return True
        return self._is_compiled and self._core.wants_trace(self._step)

    def _decide(self) -> list[float] | None:
        """Lets the core judge the step; gives a factor for each tensor if some are scaled."""
        self._is_decided = True
        if self._rows:
            self._deferred = (self._step, self._observation())
            return None
        return self._judge(self._step, self._observation())

    def _observation(self) -> dict[str, Any]:
        losses, self._losses = self._losses, []
        if not losses and self._model_loss is not None:
            losses = [self._model_loss]
        self._model_loss = None
        metric, self._metric = self._metric, None
        targets, self._targets = self._targets, None
        inputs, self._data = self._data, None
        # Broken inputs under gradients that are not: a step that a GradScaler has left out.
        is_of_step = not self._holds_broken or self._nonfinite
        if inputs is None and self._inputs is not None and is_of_step:
            inputs = self._inputs.first_float()
        rate = rate_of(self._optimizers)
        if rate is not None and self._core is not None:
            rate *= self._core.learning_rate_factor()
        return {
            "losses": losses,
            "metric": metric,
            "learning_rate": rate,
            "trace": self._trace,
            "inputs": inputs,
            "targets": targets,
        }

    def _judge(self, step: int, seen: dict[str, Any]) -> list[float] | None:
        assert self._core is not None
        inputs, targets = seen["inputs"], seen["targets"]
        own_loss = _mean(seen["losses"], self._nonfinite)
        loss, self._nonfinite, of_inputs, of_targets = self._ranks.agree(
            own_loss,
            self._nonfinite,
            None if inputs is None else _numbers(self._batch, inputs),
            None if inputs is None or targets is None else _numbers(self._batch, targets),
        )
        decision = self._core.observe(
            step,
            self._scan,
            loss=loss,
            metric=None if seen["metric"] is None else float(seen["metric"]),
            learning_rate=seen["learning_rate"],
            trace=seen["trace"],
            inputs=of_inputs,
            targets=of_targets,
        )
        self._teller.log(step, loss, self._scan, self._tensor_names)
        if self._core.wants_lag() and not self._culprits_sought:
            self._culprits_sought = True
            self._culprits = self._ranks.culprits(own_loss, inputs, self._inputs)
        self._repeat_pass()
        if self._core.wants_lag():
            self._core.observe_lag(_lag.second_moment_lag(self._parameters, self._optimizers))
        return None if decision is None else self._carry_out(decision)

    def _carry_out(self, decision: Any) -> list[float] | None:
        if decision.stop and not self.should_stop:
            self.should_stop = True
            self._teller.warn(
                "nothing that can be done while the run goes on has helped: stop it and see "
                "guard.diagnosis()"
            )
        if decision.rewind is not None:
            self._take_away()
            restored = self._snapshots.rewind(decision.rewind)
            if restored is not None:
                self._step = restored - 1
            return None
        if decision.action == "skip" or decision.stop:
            self._take_away()
            self._buffers.restore()
            return None
        factors = [1.0] * len(self._parameters)
        if decision.action == "scale-all":
            factors = [decision.factor] * len(self._parameters)
        for index, factor in decision.factors:
            factors[index] = factor
        return factors

    def _take_away(self) -> None:
        """Leaves the step out: without gradients no optimizer touches parameters or state."""
        self._took_away = True
        self._scan.release()
        for parameter in self._parameters:
            parameter.grad = None

    def _scale(self, factors: list[float] | None, max_norm: float) -> None:
        """Scales each tensor by its factor and all of them so that the norm is in bounds."""
        norms = self._scan.norms()
        if factors is not None:
            norms = [norm * factor for norm, factor in zip(norms, factors, strict=True)]
        norm = (
            math.hypot(*(norm for norm in norms if norm == norm)) if factors else self._scan.norm()
        )
        clip = max_norm / norm if norm > max_norm else 1.0
        if factors is None and clip == 1.0:
            return
        every = clip if factors is None else [factor * clip for factor in factors]
        _gradients.scale(self._scan, self._parameters, every)

    # --- the update --------------------------------------------------------------------------

    def _before_update(self) -> None:
        assert self._core is not None
        if self.mode == "protect":
            if self._core.wants_snapshot(self._step):
                self._snapshots.take(self._step)
            if self._before is None:
                self._before = StateCopy(self._parameters, self._optimizers, [])
            self._before.take()
        elif self._rows is None and (
            self._step < _SAMPLE_EVERY_STEP or self._step % _SAMPLE_EVERY == 0
        ):
            self._sampler.take(self._parameters)
            self._sampled = True

    def _after_update(self) -> None:
        assert self._core is not None
        if self.mode != "protect" or self._before is None:
            if self._sampled:
                self._sampler.measure(self._parameters, self._updates)
            self._core.observe_update(self._updates if self._sampled else None)
            self._sampled = False
            return
        self._measure_update()
        verdict = self._core.observe_update(self._updates)
        if verdict is None:
            return
        self._before.restore()
        if verdict > 0.0 and not self._scaling.is_fused():
            _gradients.scale(self._scan, self._parameters, verdict)
            self._step_again()
            self._measure_update()
            if self._core.observe_shrunk_update(self._updates):
                return
            self._before.restore()
        elif verdict > 0.0:
            self._updates.clear(len(self._parameters))
            self._core.observe_shrunk_update(self._updates)
        self._buffers.restore()

    def _measure_update(self) -> None:
        assert self._before is not None
        before = [
            copy if parameter.grad is not None or parameter.requires_grad else None
            for copy, parameter in zip(self._before.parameters, self._parameters, strict=True)
        ]
        elsewhere = self._updates.measure(before, self._parameters)
        pairs = [
            tuple(_gradients.values_of(t.detach())[0] for t in (before[i], self._parameters[i]))
            for i in elsewhere
        ]
        for index, row in zip(elsewhere, _device.updates(pairs), strict=True):
            self._updates.put(index, *row)
        self._ranks.combine_updates(self._updates)

    def _step_again(self) -> None:
        """Lets the optimizers make the update anew, without the hooks of others."""
        assert self._core is not None
        self._re_stepping = True
        try:
            for optimizer in self._optimizers:
                self._rate.lower(optimizer, self._core.learning_rate_factor())
                inner = getattr(type(optimizer).step, "__wrapped__", None)
                inner(optimizer) if inner is not None else optimizer.step()
        finally:
            self._rate.restore()
            self._re_stepping = False

    # --- layers ------------------------------------------------------------------------------

    def _arm(self) -> None:
        assert self._core is not None
        if not self._is_compiled and self._core.wants_trace(self._step):
            self._probes.arm()

    def _repeat_pass(self) -> None:
        """After an alarm the pass is repeated with hooks at every layer, on the same inputs."""
        assert self._core is not None
        if not self._core.wants_repeated_trace():
            return
        trace = None if self._inputs is None else self._repeat(self._inputs)
        trace = self._ranks.combine_trace(trace)
        if trace is not None:
            self._core.observe_trace(trace)

    def _repeat(self, inputs: Inputs) -> Any:
        try:
            return self._probes.replay(inputs)
        except Exception as error:
            self._teller.warn(f"the pass could not be repeated to see the layers: {error}")
            return None

    # --- the rest ----------------------------------------------------------------------------

    def _settle_deferred(self) -> None:
        """Judges the step whose numbers were still on their way from the device."""
        if self._deferred is None or self._rows is None:
            return
        (step, seen), self._deferred = self._deferred, None
        self._rows.finish(self._scan)
        if not seen["losses"]:
            seen["losses"], self._losses = self._losses, []
        self._nonfinite = self._scan.nonfinite()
        self._judge(step, seen)
        assert self._core is not None
        self._core.observe_update(None)
        self._teller.tell(self._core)

    def _skip_watching(self) -> None:
        """A loss scale that was too large: the step is left out by its own machinery."""
        self._is_read = self._holds_broken = False
        self._losses = []

    def _new_core(self) -> Core:
        probes = self._probes
        layers = probes.layers
        rows = []
        for name, is_matrix in zip(self._tensor_names, self._is_matrix, strict=True):
            owner = name.rpartition(".")[0]
            while owner and owner not in probes.owners:
                owner = owner.rpartition(".")[0]
            rows.append((name, probes.owners.get(owner), is_matrix))
        return Core(rows, layers, dtype_max=probes.dtype_max or self._dtype_max(), **self._options)

    def _core_or_new(self) -> Core:
        return self._core if self._core is not None else self._new_core()

    def _dtype_max(self) -> float | None:
        kinds = {p.dtype for p in self._parameters if p.is_floating_point()}
        return min((torch.finfo(kind).max for kind in kinds), default=None)

    def _has_device(self) -> bool:
        return any(p.device.type not in ("cpu", "meta") for p in self._parameters)

    def _check_parameters(self) -> None:
        slots = sum(len(g["params"]) for o in self._optimizers for g in o.param_groups)
        if slots != self._slots:
            self._slots = slots
            self._teller.warn(
                "the optimizer's parameters have changed: those that were added are not watched; "
                "detach the guard and watch again to include them"
            )


def _is_matrix(parameter: torch.Tensor) -> bool:
    if parameter.dim() < 2 or parameter.device.type == "meta":
        return False
    local = getattr(parameter, "_local_tensor", parameter).detach()
    return bool(local.numel()) and bool(local.any())


def _loss_in(output: Any) -> torch.Tensor | None:
    """The loss, where a model's output is a mapping that holds it."""
    loss = output.get("loss") if isinstance(output, Mapping) else None
    is_loss = isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1
    return loss.detach() if is_loss else None


def _mean(losses: list[Any], nonfinite: int) -> float | None:
    """The mean loss of the micro-batches of a step whose gradients have so many elements that are not
    finite. Without any, a loss that is not finite is of a step that a ``GradScaler`` has left out."""
    known = [float(loss) for loss in losses]
    finite = [loss for loss in known if math.isfinite(loss)]
    counted = finite if finite and not nonfinite else known
    return sum(counted) / len(counted) if counted else None


def _is_broken(loss: Any) -> bool:
    """Whether a loss is not finite, as far as that is known without waiting for a device."""
    if isinstance(loss, torch.Tensor) and loss.device.type != "cpu":
        return False
    return not math.isfinite(float(loss))


def _is_compiled(model: nn.Module) -> bool:
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def _numbers(scan: Scan, tensor: torch.Tensor | _device.Numbers):
    if isinstance(tensor, tuple):
        # What was logged before the run was interrupted.
        return tensor
    if not scan.tensors([tensor]):
        return scan.get(0)
    dense, missing = _gradients.values_of(tensor.detach())
    if dense.device.type != "cpu":
        return _gradients.with_zeros(_device.exact(dense), missing)
    scan.tensors([dense])
    numbers = scan.get(0)
    return None if numbers is None else _gradients.with_zeros(numbers, missing)
