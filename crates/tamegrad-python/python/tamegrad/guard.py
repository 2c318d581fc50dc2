"""The guard of a torch training loop: what the loop calls, and hooks at the optimizer's step."""

from __future__ import annotations

import functools
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import _checks, _clipping, _device, _ranks
from ._bisect import Bisection, bisect_last
from ._hooks import StepHooks
from ._optimizers import Newcomers
from ._record import IfRunExists, Recording
from ._steps import Clip, Steps
from ._telling import CallbackError, Teller
from ._watched import Watched
from .diagnosis import Diagnosis, Finding

_live: weakref.WeakSet[Guard] = weakref.WeakSet()
"""The guards that watch something."""


class Guard:
    """Watches the steps of a model's optimizers; created by :func:`tamegrad.watch`.

    At each step, before the optimizer runs, one pass reads all gradients in place. The core judges
    them and, in ``protect`` mode, decides what to do about it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        teller: Teller,
        *,
        strict: bool,
        options: dict[str, Any],
        run: str | os.PathLike[str] | None = None,
        if_run_exists: IfRunExists = "number",
        **parts: Any,
    ) -> None:
        """``options`` are those of the core, and ``parts`` what else :class:`Steps` is given."""
        self.mode = options["mode"]
        self.failure: str | None = None
        """Why the guard stopped watching, if an error inside tamegrad stopped it."""
        self._strict = strict
        self._detached = False
        self._watched = Watched(model, optimizers)
        _let_go_of(self._watched.parameters)
        self._teller = teller
        if self._watched.are_strange():
            teller.warn(
                "the optimizer holds none of the model's parameters; was it made for another model, or "
                "before this one was replaced? Its parameters are watched under names like group0.0"
            )
        self._steps = Steps(
            model, self._watched, options=options, teller=teller, on_error=self._fail, **parts
        )
        self._hooks = StepHooks(
            self._steps.update,
            opens=functools.partial(self._safely, self._steps.open),
            opens_with=functools.partial(self._safely, self._open_with),
            closes=functools.partial(self._safely, self._steps.close),
        )
        self._newcomers = Newcomers(self._adopt)
        self._recording = None
        if run is not None:
            self._recording = self._record(run, if_run_exists, parts["process_group"])
        teller.recording = self._recording
        self._steps.incidents.attach(self._steps.passes)
        _live.add(self)
        self._steps.passes.attach()
        self._steps.scaling.attach(functools.partial(self._safely, self._steps.left_out))
        self._newcomers.know(self._watched.optimizers)
        self._newcomers.attach()
        for optimizer in self._watched.optimizers:
            self._hooks.attach(optimizer)

    # --- what the user calls -----------------------------------------------------------------

    def clip_(
        self, max_norm: float, *, loss: Any = None, error_if_nonfinite: bool = False
    ) -> torch.Tensor:
        """Clips all gradients by their global L2 norm; replaces ``clip_grad_norm_``.

        The gradients are multiplied by ``max_norm / norm`` if the norm is above ``max_norm``; otherwise
        nothing is written. Clipping shares the read that the guard needs anyway, so it costs no second
        one. A gradient that is not finite cannot be clipped (Inf times 0 is NaN): it is left as it is,
        and the step that follows is skipped, with parameters and optimizer state unchanged. Gradients
        scaled by a ``GradScaler`` are first divided by its scale, as ``unscale_`` does.

        Returns the norm of the finite elements before clipping, in f64 on the CPU.

        Raises ``ValueError`` if the limit is negative or NaN.
        """
        limit = _clipping.limit("max_norm", max_norm)
        self.log(loss=loss)
        if self._detached:
            return torch.nn.utils.clip_grad_norm_(self._watched.parameters, limit)
        norm = self._clip(lambda factors: self._steps.scale(factors, limit), limit)
        nonfinite = self._steps.step.nonfinite
        if error_if_nonfinite and nonfinite:
            raise RuntimeError(f"{nonfinite} elements of the gradients are not finite")
        return norm

    def clip_value_(self, max_value: float, *, loss: Any = None) -> torch.Tensor:
        """Clamps every element of the gradients; replaces ``clip_grad_value_``.

        This changes the direction of the gradient; :meth:`clip_` does not. Non-finite gradients and
        the returned norm are treated as in :meth:`clip_`.

        Raises ``ValueError`` if the limit is negative or NaN.
        """
        largest = _clipping.limit("max_value", max_value)
        self.log(loss=loss)
        parameters = self._watched.parameters
        elements = sum(parameter.numel() for parameter in parameters)
        rule = functools.partial(_clipping.by_value, parameters, largest)
        return self._clip_by(rule, largest * math.sqrt(elements))

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
        the norm of its weights, which counts as at least ``eps``.

        ``skip`` lists modules that are not clipped; the last layer should be among them (same
        source). Non-finite gradients and the returned norm are treated as in :meth:`clip_`.

        Raises ``ValueError`` if a number is negative or NaN.
        """
        ratio, eps = _clipping.limit("ratio", ratio), _clipping.limit("eps", eps)
        self.log(loss=loss)
        skipped = {id(parameter) for module in skip for parameter in module.parameters()}
        clipped = [p for p in self._watched.parameters if id(p) not in skipped]
        return self._clip_by(functools.partial(_clipping.by_unit, clipped, ratio, eps), None)

    def step(self, *, loss: Any = None) -> bool:
        """Observes a step whose update is made by hand, for a guard without an optimizer. Returns
        whether to make the update.

        Call it after the backward pass and before the update::

            loss.backward()
            if guard.step(loss=loss):
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.1 * parameter.grad

        In observe mode the result is always true. In protect mode it is false if the step is to be
        skipped, and the gradients may have been scaled.

        Raises ``ValueError`` if the guard was given an optimizer.
        """
        if self._watched.optimizers:
            raise ValueError(
                "guard.step() is for updates made by hand; this guard was given an optimizer and sees "
                "its steps without the call"
            )
        self.log(loss=loss)
        return self._safely(self._steps.by_hand) is not False

    def log(
        self,
        *,
        loss: Any = None,
        metric: Any = None,
        inputs: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        batch: Any = None,
    ) -> None:
        """Gives the guard what it cannot see: the training loss, a held-out metric (higher is
        better), regression targets.

        A loss logged before ``optimizer.step()`` counts for that step, and one logged after it for the
        next, unless it is NaN or Inf and was seen at ``backward()``. If several losses are logged, for
        micro-batches whose gradients are accumulated, their mean counts. A loss in the model's output, as
        in Transformers, is seen without logging. The guard reads how the loss was computed when
        ``backward()`` is called on it; if the gradients come from ``torch.autograd.grad``, log the loss
        before that call. ``inputs`` are needed only if the data is not what the model is called with.
        ``batch`` is kept until the step ends; the guard passes it to ``step_fn`` when it looks into an
        alarm.

        Raises ``TypeError`` if a value is not a number or tensor, and ``ValueError`` if the loss has
        several elements or does not fit into a float; the guard then goes on as before.
        """
        _checks.number("loss", loss)
        _checks.number("metric", metric)
        _checks.tensor("inputs", inputs)
        _checks.tensor("targets", targets)
        self._safely(self._steps.passes.log, loss, metric, inputs, targets, batch)

    @property
    def should_stop(self) -> bool:
        """Whether everything that can be done during the run has been tried without success."""
        return self._steps.should_stop

    @property
    def culprit_ranks(self) -> list[int]:
        """The ranks whose own share of the batch caused the first alarm: its loss, its inputs or the
        gradient at the model's output was not finite, or far above that of the other ranks. Empty
        before an alarm, or if no rank stands out."""
        return self._steps.after_alarm.culprits

    @property
    def sees_loss(self) -> bool:
        """Whether the model's output contains the loss, so that it need not be logged."""
        return self._steps.passes.tells_loss

    @property
    def run_folder(self) -> Path | None:
        """The folder in which the run is recorded, if this rank records it."""
        return None if self._recording is None else self._recording.folder

    @property
    def incident_folder(self) -> Path | None:
        """Where the step of the first alarm was saved, for :func:`tamegrad.load_incident`."""
        return self._steps.incidents.folder

    @torch.no_grad()
    def dump(self, folder: str | os.PathLike[str] | None = None, batch: Any = None) -> Path:
        """Saves the current step as at the first alarm: writes ``incident-<step>`` into a folder, by
        default that of the run. Returns its path.

        ``batch`` is what your loss is computed from; without it, what the model was called with since
        the last step is saved. The folder may contain private training data.

        Raises ``OSError`` if it cannot be written, and ``ValueError`` if there is no folder.
        """
        return self._steps.incidents.dump(self._steps, folder, batch)

    def bisect(
        self, step_fn: Callable[[nn.Module, Any], torch.Tensor], **options: Any
    ) -> Bisection:
        """Reruns the step of the first alarm under other conditions: :func:`tamegrad.bisect` with what
        was saved at the alarm, on copies of the model and its optimizers.

        Raises ``ValueError`` if no alarm was saved.
        """
        return bisect_last(self._steps, step_fn, options)

    @property
    def step_number(self) -> int:
        """Number of the next step."""
        return self._steps.step.number

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the finite elements of the gradients that were last read."""
        return self._steps.scan.norm()

    def diagnosis(self) -> Diagnosis:
        """The diagnosis so far: verdict, onset, origin, causes, signs, gains, remedies."""
        steps = self._steps
        steps.settle()
        core = self._safely(steps.diagnosed) or steps.core_or_new()
        notes = [] if steps.ceiling.reached_at is None else [steps.ceiling.words()]
        if steps.passes.sees_nothing:
            notes.append(
                "no call of the model was seen, so its data and layers are unknown: compile the model "
                "before tamegrad.watch, and pass the object that the loop calls"
            )
        return Diagnosis(core, failure=self.failure, notes=notes)

    def findings(self) -> list[Finding]:
        """Every sign that fired, oldest first."""
        return [Finding._of(row) for row in self._steps.core_or_new().findings(0)]

    def actions(self) -> list[tuple[int, Any]]:
        """The actions of the guard, each with its step; empty in observe mode."""
        return self._steps.core_or_new().actions()

    @torch.no_grad()
    def state_dict(self) -> dict[str, Any]:
        """The guard's state, to be saved with a checkpoint of the model and the optimizers.

        It holds what the guard has seen, found and done, its baselines and signs, in protect mode the
        learning rate, and what was logged for the next step. These are bytes, numbers, names and lists
        of them, always under the same keys, so that ``torch.save``,
        ``torch.load(weights_only=True)`` and ``torch.distributed.checkpoint`` accept it. It does not
        include snapshots to rewind to, nor the graph of a loss: if a loss logged for the next step is not
        finite, its operation is not looked for.

        Call it between two steps. With several ranks, all guards have the same state except for what
        was logged for the next step.
        """
        return self._steps.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from the state that :meth:`state_dict` returned: the next steps are judged as if
        the run had not been interrupted.

        Call it after the model and the optimizers have been restored from the checkpoint, and before
        the next forward pass. Mode and options remain those of this guard. Until it takes its first
        snapshot there is nothing to rewind to.

        Raises ``ValueError`` if this is not such a state, if it is damaged or written in another format,
        or if the model has different parameters or modules; the guard is then unchanged.
        """
        self._steps.restore(state, is_attached=not self._detached)

    def close(self) -> None:
        """Stops watching: removes every hook, and ends the run if it is recorded. The diagnosis
        remains available.

        Without this call, a recorded run ends when its process ends or when model, optimizer and guard
        are collected. In a ``with`` block the end of the block closes the guard::

            with tamegrad.watch(model, optimizer, run="runs/first") as guard:
                ...
        """
        self.detach()

    def detach(self) -> None:
        """The same as :meth:`close`."""
        try:
            if self.failure is None:
                self._safely(self._steps.see_end)
                if self._recording is not None:
                    self._safely(self._steps.settle_alone)
        finally:
            self._detached = True
            _live.discard(self)
            self._hooks.detach_all()
            self._newcomers.detach()
            self._steps.detach(has_failed=self.failure is not None)
            if self._recording is not None:
                how = self.failure and "tamegrad stopped watching"
                self._recording.end(self._steps.core, how)

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _record(
        self, run: str | os.PathLike[str], if_run_exists: IfRunExists, group: Any
    ) -> Recording | None:
        """Begins to record, on the first rank only: it has the numbers of all."""
        rank, ranks = _ranks.rank_and_size(group)
        if rank != 0:
            return None
        environment = {
            "torch": torch.__version__,
            "device": _device.names(self._watched.parameters),
            "guard": self.mode,
            "rank": str(rank),
            "ranks": str(ranks),
        }
        recording = Recording(run, if_run_exists, "torch", environment)
        recording.belongs_to(self)
        return recording

    # --- hooks -------------------------------------------------------------------------------

    def _safely(self, call: Callable[..., Any], *given: Any) -> Any:
        """An error inside tamegrad does not stop the training: it is reported, and the guard detaches
        from the run. With ``strict`` it is raised."""
        if self._detached:
            return None
        records = torch.is_grad_enabled()
        try:
            # As `torch.no_grad` does, without its objects: this runs four times a step.
            torch._C._set_grad_enabled(False)
            return call(*given)
        except CallbackError as error:
            raise error.cause from None
        except Exception as error:
            self._fail(error)
            return None
        finally:
            torch._C._set_grad_enabled(records)

    def _open_with(self, optimizer: torch.optim.Optimizer, loss: Any) -> None:
        """Before an optimizer's update, with the loss that a closure has given."""
        if isinstance(loss, (torch.Tensor, float)):
            self._steps.passes.log(loss, None, None, None)
        self._steps.open(optimizer)

    def _adopt(self, optimizer: torch.optim.Optimizer) -> None:
        self._safely(self._take_over, optimizer)

    def _take_over(self, optimizer: torch.optim.Optimizer) -> None:
        """Takes an optimizer that steps on our parameters in the place of those that did before."""
        replaced = self._watched.replace_by(optimizer)
        if replaced is None:
            return
        for old in replaced:
            self._hooks.detach(old)
        self._hooks.attach(optimizer)
        self._steps.step.stepped.clear()
        self._steps.take_newcomers()

    def _clip_by(self, rule: Callable[[], None], bound: float | None) -> torch.Tensor:
        """Clips by a rule other than the global norm, by that alone where nothing is watched."""
        if self._detached:
            gradients = [p.grad for p in self._watched.parameters if p.grad is not None]
            norm = nn.utils.get_total_norm(gradients)
            rule()
            return norm

        def clip(factors: list[float] | None) -> None:
            self._steps.scale(factors, math.inf)
            rule()

        return self._clip(clip, bound)

    def _clip(self, clip: Clip, bound: float | None) -> torch.Tensor:
        norm = self._safely(self._steps.clip, clip, bound)
        return torch.tensor(math.nan if norm is None else norm, dtype=torch.float64)

    def _fail(self, error: Exception) -> None:
        """Ends the watching after an error inside tamegrad."""
        if self._strict:
            raise error
        number = self._steps.step.number
        self.failure = (
            f"tamegrad stopped watching at step {number}: {type(error).__name__}: {error}"
        )
        self._teller.fail(f"{self.failure}; training continues without it")
        self.detach()


def _let_go_of(parameters: list[torch.Tensor]) -> None:
    """Ends the watching of guards that were there for some of these parameters: a cell of a notebook
    that is run again."""
    wanted = set(map(id, parameters))
    for guard in list(_live):
        if not wanted.isdisjoint(map(id, guard._watched.parameters)):
            guard.close()
