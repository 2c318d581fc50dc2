"""The guard of a torch training loop: what the loop calls, and hooks at the optimizer's step."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from . import _checks, _clipping
from ._hooks import StepHooks
from ._optimizers import Newcomers
from ._steps import Clip, Steps
from ._telling import CallbackError, Teller
from ._watched import Watched
from .diagnosis import Diagnosis, Finding

_live: weakref.WeakSet[Guard] = weakref.WeakSet()
"""The guards that watch something."""


class Guard:
    """Watches the steps of a model's optimizers; made by :func:`tamegrad.watch`.

    At each step, before the optimizer runs, one pass reads all gradients where they lie. The core
    judges them, and in ``protect`` mode says what is done about it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        teller: Teller,
        *,
        strict: bool,
        options: dict[str, Any],
        **parts: Any,
    ) -> None:
        """``options`` are those of the core, and ``parts`` what else :class:`Steps` is given."""
        self.mode = options["mode"]
        self.failure: str | None = None
        """Why watching has ended before the run, if an error inside tamegrad has ended it."""
        self._strict = strict
        self._detached = False
        self._watched = Watched(model, optimizers)
        _let_go_of(self._watched.parameters)
        self._teller = teller
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
        _live.add(self)
        self._steps.passes.attach()
        self._steps.scaling.attach()
        self._newcomers.know(self._watched.optimizers)
        self._newcomers.attach()
        for optimizer in self._watched.optimizers:
            self._hooks.attach(optimizer)

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
            return torch.nn.utils.clip_grad_norm_(self._watched.parameters, limit)
        norm = self._clip(lambda factors: self._steps.scale(factors, limit), limit)
        nonfinite = self._steps.step.nonfinite
        if error_if_nonfinite and nonfinite:
            raise RuntimeError(f"{nonfinite} elements of the gradients are not finite")
        return norm

    def clip_value_(self, max_value: float, *, loss: Any = None) -> torch.Tensor:
        """Limits every element of the gradients, in place of ``clip_grad_value_``.

        It bends the direction of the gradient; :meth:`clip_` does not. What holds there of
        gradients that are not finite and of the norm that is returned holds here.

        Raises ``ValueError`` for a limit that is negative or NaN.
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
        that of its weights, which count as ``eps`` at least.

        ``skip`` names modules that are left alone: the last layer should be among them (same
        source). What holds in :meth:`clip_` of gradients that are not finite and of the norm that
        is returned holds here.

        Raises ``ValueError`` for a number that is negative or NaN.
        """
        ratio, eps = _clipping.limit("ratio", ratio), _clipping.limit("eps", eps)
        self.log(loss=loss)
        skipped = {id(parameter) for module in skip for parameter in module.parameters()}
        clipped = [p for p in self._watched.parameters if id(p) not in skipped]
        return self._clip_by(functools.partial(_clipping.by_unit, clipped, ratio, eps), None)

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
        if self._watched.optimizers:
            raise ValueError(
                "guard.step() is for updates by hand; this guard was given an optimizer, whose step "
                "it sees by itself"
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
        self._safely(self._steps.passes.log, loss, metric, inputs, targets)

    @property
    def should_stop(self) -> bool:
        """Whether all that can be done while the run goes on has been done in vain."""
        return self._steps.should_stop

    @property
    def culprit_ranks(self) -> list[int]:
        """Of several ranks, those whose own share of the batch brought the first alarm: its loss,
        inputs or the gradient at the model's output was not finite, or far above the others'.
        Empty while there is no alarm, and where no rank stands out."""
        return self._steps.culprits

    @property
    def sees_loss(self) -> bool:
        """Whether the model's output holds the loss, so that it need not be logged."""
        return self._steps.passes.tells_loss

    @property
    def step_number(self) -> int:
        """Number of the coming step."""
        return self._steps.step.number

    @property
    def gradient_norm(self) -> float:
        """L2 norm of the finite elements of the gradients that were read last."""
        return self._steps.scan.norm()

    def diagnosis(self) -> Diagnosis:
        """What was seen so far: verdict, onset, origin, causes, signs, gains, remedies."""
        steps = self._steps
        steps.settle()
        notes = [] if steps.ceiling.reached_at is None else [steps.ceiling.words()]
        if steps.passes.sees_nothing:
            notes.append(
                "no call of the model was seen, so nothing is known of its data and layers: compile it "
                "before tamegrad.watch, and give watch what the loop calls"
            )
        return Diagnosis(steps.core_or_new(), failure=self.failure, notes=notes)

    def findings(self) -> list[Finding]:
        """Every sign that fired, oldest first."""
        return [Finding._of(row) for row in self._steps.core_or_new().findings(0)]

    def actions(self) -> list[tuple[int, Any]]:
        """What was done to the run, each with its step; empty in observe mode."""
        return self._steps.core_or_new().actions()

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
        return self._steps.state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where the guard of :meth:`state_dict` stood: the coming steps are judged as if
        the run had not been interrupted.

        Call it when the model and the optimizers have the checkpoint's state, and before the next
        forward pass. Mode and options are those of this guard. Until it takes its first snapshot
        there is nothing to rewind to.

        Raises ``ValueError`` if it is no such state, is damaged, was written in another format, or
        if the model has other parameters or modules; the guard then stays as it is.
        """
        self._steps.restore(state, is_attached=not self._detached)

    def detach(self) -> None:
        """Takes every hook away. The diagnosis stays."""
        self._detached = True
        _live.discard(self)
        self._hooks.detach_all()
        self._newcomers.detach()
        self._steps.detach()

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *error: object) -> None:
        self.detach()

    # --- hooks -------------------------------------------------------------------------------

    def _safely(self, call: Callable[..., Any], *given: Any) -> Any:
        """What goes wrong in tamegrad does not stop the training: it is told, and the guard lets go of
        the run. With ``strict`` it is raised."""
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
        self._teller.fail(f"{self.failure}; the training goes on without it")
        self.detach()


def _let_go_of(parameters: list[torch.Tensor]) -> None:
    """Ends the watching of guards that were there for some of these parameters: a cell of a notebook
    that is run again."""
    wanted = set(map(id, parameters))
    for guard in list(_live):
        if not wanted.isdisjoint(map(id, guard._watched.parameters)):
            guard.detach()
