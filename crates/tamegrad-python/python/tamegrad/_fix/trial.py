"""A trial: one run of the user's objective with a change, watched."""

from __future__ import annotations

import array
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from .. import _checks
from .._optimizers import resolved
from .._rate import rate_of
from .._remedies import WEIGHTED
from .._watch import watch
from ..diagnosis import Finding
from .batches import rows_of
from .changes import BY_KIND
from .constant import ConstantAnswer
from .hooks import RateRule, Told, attach_after, attach_before
from .knobs import Knobs
from .outcome import EXPLODING, Task

SPLITS = ("validation", "test")

_LOSSES = 20
"""Training losses at the end whose mean counts where no metric is reported."""
_FIRST_LOSSES = 3
_FIRST_BATCHES = 32
"""Batches that a change may look at before the first step."""
_CHECK_EVERY = 10
"""Steps between two looks at the verdict of a run with an alarm."""
_PATIENCE_MIN, _PATIENCE_MAX, _PATIENCE_PART = 20, 100, 0.1
"""Steps after an alarm in which a run whose loss is finite may recover."""
_END = object()


class TrialEnd(BaseException):
    """Ends an objective from inside: its trial is over. Do not catch it, as with KeyboardInterrupt."""


class Trial(Knobs):
    """What an objective is given. Its knobs are methods such as :meth:`rate` and :meth:`depth`.

    ::

        def objective(trial):
            model = Net(depth=trial.depth(30))
            optimizer = torch.optim.AdamW(model.parameters(), lr=trial.rate(1e-3))
            model, optimizer = trial.prepare(model, optimizer)
            for epoch in range(trial.epochs(20)):
                for x, y in trial.batches(loader):
                    loss = loss_fn(model(x), y)
                    trial.report(loss)
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            trial.report(metric=accuracy(model, validation))
            trial.report(metric=accuracy(model, test), split="test")
    """

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.seed = task.seed
        """The seed of this trial; torch, NumPy and Python's ``random`` are seeded with it already."""
        self.label = task.label
        """``as given``, or the names of its changes."""
        self.changes = task.changes
        self.mode = "observe"
        """The mode of the guard that watches."""
        self.guard: Any = None
        """The guard, after :meth:`prepare`."""
        self.rows = 0
        """Rows of the batch that was drawn last."""
        self.ends_itself = False
        """Whether the loop asks :attr:`is_over` and ends by itself."""
        self._state = State()
        self._before: list[Told] = []
        self._after: list[Told] = []
        self._on_batch: list[Callable[[Any], Any]] = []
        self._before_batches: list[Callable[[list[Any]], None]] = []
        self._models: list[nn.Module] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        self._loader_length: int | None = None

    # --- what the objective calls --------------------------------------------------------------

    def prepare(self, model: Any, optimizer: Any) -> tuple[Any, Any]:
        """Applies the change of this trial to a model and its optimizer, begins to watch them, and
        returns both: the same objects.

        Call it once, after the optimizer is made and before the first pass. ``model`` may be a tuple of
        modules, and ``optimizer`` a tuple of optimizers that step on the same batches, as in a GAN.
        """
        if self.guard is not None:
            raise ValueError(
                "trial.prepare: got a second call, want one; pass several models and optimizers as tuples"
            )
        parts = model if isinstance(model, (list, tuple)) else [model]
        for part in parts:
            if not isinstance(part, nn.Module):
                raise TypeError(f"model: got {type(part).__name__}, want a torch.nn.Module")
        self._models = list(parts)
        whole = parts[0] if len(parts) == 1 else nn.ModuleList(parts)
        self._optimizers = resolved(optimizer)
        self._state.note_groups(self._optimizers)
        self._state.note_modules(whole)
        for change in self.changes:
            if change.kind not in self.turned:
                BY_KIND[change.kind].apply(change, self, whole, self._optimizers)
        attach_before(self._optimizers, [self._note_rate])
        attach_before(self._optimizers, self._before)
        self.guard = watch(
            whole,
            self._optimizers,
            self.mode,
            total_steps=self.total,
            on_finding=self._found,
            incidents=False,
        )
        attach_after(self._optimizers, [*self._after, self._stepped])
        return model, optimizer

    def batches(self, loader: Iterable[Any]) -> Batches:
        """The batches of a loader, for the loop over one epoch or over the whole training. A trial that
        is shorter than the training ends this loop early, so that what follows it still runs."""
        self.offered.setdefault("batches", True)
        return Batches(self, loader)

    def report(self, loss: Any = None, *, metric: Any = None, split: str = "validation") -> None:
        """Reports the training loss of a step, a metric, or both.

        Report the loss in each step, best before ``backward()``, while its graph can be read: the
        diagnosis then names the operation. ``metric`` is computed on a part of the data that is not trained
        on: ``split="validation"`` is used to choose between trials, ``split="test"`` is only shown. The
        last one of each counts.

        Raises ``TypeError`` if a value is not a number, and ``ValueError`` for another split.
        """
        if split not in SPLITS:
            raise ValueError(f"split: got {split!r}, want 'validation' or 'test'")
        _checks.number("metric", metric)
        if self.guard is None:
            raise ValueError("trial.report: got a call before trial.prepare(model, optimizer)")
        if loss is not None:
            self.guard.log(loss=loss)
            self._state.note_loss(loss)
            self._state.constant.see_loss(loss)
        if metric is None:
            return
        value = float(metric)
        self._state.metrics[split] = value
        if split == "validation":
            self.guard.log(metric=value)
            if self._state.is_used_up:
                raise TrialEnd

    @property
    def is_over(self) -> bool:
        """Whether a trial that is shorter than the training has reached its end."""
        return self._state.is_used_up

    # --- what changes call ---------------------------------------------------------------------

    def uses(self, name: str) -> bool:
        """Whether the objective, as given, asked for a knob or for ``batches``."""
        return self._task.shorten == name or name in self.offered

    def planned(self, steps: int) -> None:
        """Takes in the number of steps of the whole training from a library whose loop has no knob."""
        self.offered.setdefault("steps", int(steps))

    def before_step(self, call: Told) -> None:
        """Has a function called with the optimizer before each of its steps."""
        self._before.append(call)

    def after_step(self, call: Told) -> None:
        """Has a function called with the optimizer after each of its steps."""
        self._after.append(call)

    def on_rate(self, rule: Callable[[float, int], float]) -> None:
        """Has the learning rate of each step set by a rule: from that of the objective and the number of
        the step."""
        held = RateRule(rule)
        self._before.append(held.set)
        self._after.append(held.restore)

    def on_batch(self, change: Callable[[Any], Any]) -> None:
        """Has every batch changed; ``None`` leaves it out."""
        self._on_batch.append(change)

    def before_batches(self, look: Callable[[list[Any]], None]) -> None:
        """Shows the first batches to a function, once."""
        self._before_batches.append(look)

    def adopt(self, parameters: list[torch.Tensor]) -> None:
        """Gives parameters that a change has added to the optimizer, without weight decay."""
        if parameters:
            group = {"params": parameters}
            if "weight_decay" in self._optimizers[0].param_groups[0]:
                group["weight_decay"] = 0.0
            self._optimizers[0].add_param_group(group)

    # --- how far it has come -------------------------------------------------------------------

    @property
    def total(self) -> int | None:
        """Steps of the whole training with this change, as far as that is known."""
        if "steps" in self.offered:
            return self.offered["steps"]
        if "epochs" in self.offered and self._loader_length is not None:
            return self.offered["epochs"] * self._loader_length
        return self._task.total

    @property
    def steps_done(self) -> int:
        """Batches drawn, or steps of the optimizer where none are drawn from the trial."""
        return self._state.drawn or self._state.steps

    @property
    def limit(self) -> float:
        """Steps after which this trial ends."""
        total = self.total
        if self._task.part >= 1.0 or total is None:
            return math.inf
        return max(1, round(self._task.part * total))

    def draw(self, loader: Iterable[Any]) -> Iterator[Any]:
        """One pass over the loader, with the change applied to every batch."""
        state = self._state
        if hasattr(loader, "__len__"):
            self._loader_length = len(loader)
        batches = iter(loader)
        if self._before_batches and state.drawn == 0:
            batches = self._shown(batches)
        while state.drawn < self.limit:
            batch = next(batches, _END)
            if batch is _END:
                return
            state.drawn += 1
            for change in self._on_batch:
                batch = change(batch) if batch is not None else None
            if batch is None:
                continue
            self.rows = rows_of(batch) or 0
            state.constant.see_batch(batch)
            yield batch
        state.is_used_up = True

    def _shown(self, batches: Iterator[Any]) -> Iterator[Any]:
        first = [batch for _, batch in zip(range(_FIRST_BATCHES), batches, strict=False)]
        for look in self._before_batches:
            look(first)
        yield from first
        yield from batches

    # --- hooks -----------------------------------------------------------------------------------

    def _note_rate(self, optimizer: torch.optim.Optimizer) -> None:
        if optimizer is self._optimizers[0]:
            self._state.rates.append(rate_of(self._optimizers) or 0.0)

    def _found(self, finding: Finding) -> None:
        if finding.severity == "alarm" and self._state.alarm is None:
            self._state.alarm = self._state.steps

    def _stepped(self, optimizer: torch.optim.Optimizer) -> None:
        state = self._state
        if optimizer is not self._optimizers[-1]:
            return
        state.steps += 1
        if self._task.shorten == "stop" and self.steps_done >= self.limit:
            state.is_used_up = True
            if not self.ends_itself:
                raise TrialEnd
        if self.guard.should_stop or self._has_exploded():
            state.is_stopped = True
            raise TrialEnd

    def _has_exploded(self) -> bool:
        """Whether an alarm has come and the run has not recovered."""
        state = self._state
        if state.alarm is None or self.total is None or not self._task.stops:
            return False
        since = state.steps - state.alarm
        if since < _CHECK_EVERY or since % _CHECK_EVERY:
            return False
        verdict = self.guard.diagnosis().verdict
        patience = min(_PATIENCE_MAX, max(_PATIENCE_MIN, _PATIENCE_PART * self.total))
        return verdict == "exploded" or (verdict in EXPLODING and since >= patience)


class Batches:
    """What :meth:`Trial.batches` gives: as long as the loader, and to be passed over again."""

    def __init__(self, trial: Trial, loader: Iterable[Any]) -> None:
        self._trial = trial
        self._loader = loader

    def __iter__(self) -> Iterator[Any]:
        return self._trial.draw(self._loader)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]


class State:
    """What a trial counts."""

    def __init__(self) -> None:
        self.drawn = 0
        self.steps = 0
        self.alarm: int | None = None
        """The step at which the first alarm came."""
        self.is_used_up = False
        """Whether the batches of a shorter trial are drawn."""
        self.is_stopped = False
        """Whether it was left because it exploded."""
        self.metrics: dict[str, float] = {}
        self.rates = array.array("d")
        """The largest learning rate of each step, as the objective had it."""
        self.groups: list[dict[str, Any]] = []
        self.constant = ConstantAnswer()
        self.modules: dict[str, Any] = {}
        self._first: list[Any] = []
        self._losses: deque[Any] = deque(maxlen=_LOSSES)

    def note_loss(self, loss: Any) -> None:
        """Keeps a training loss; a tensor is read at the end, since that waits for its device."""
        kept = loss.detach() if isinstance(loss, torch.Tensor) else loss
        if len(self._first) < _FIRST_LOSSES:
            self._first.append(kept)
        self._losses.append(kept)

    def first_loss(self) -> float | None:
        """Mean of the first training losses."""
        return _mean(self._first)

    def last_loss(self) -> float | None:
        """Mean of the last training losses."""
        return _mean(self._losses)

    def note_modules(self, model: nn.Module) -> None:
        """Counts layers and norms."""
        modules = list(model.modules())
        recurrent = (nn.RNNBase, nn.RNNCellBase)
        self.modules = {
            "layers": sum(isinstance(m, WEIGHTED) for m in modules),
            "norms": sum("norm" in type(m).__name__.lower() for m in modules),
            "is_recurrent": any(isinstance(m, recurrent) for m in modules),
        }

    def note_groups(self, optimizers: list[torch.optim.Optimizer]) -> None:
        """Keeps the numbers of the parameter groups."""
        names = ("lr", "momentum", "betas", "weight_decay", "eps")
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                known = {name: _number(group[name]) for name in names if name in group}
                self.groups.append({name: v for name, v in known.items() if v is not None})


def _mean(losses: Iterable[Any]) -> float | None:
    values = [float(loss) for loss in losses]
    return sum(values) / len(values) if values else None


def _number(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_number(part) for part in value]
    return float(value) if isinstance(value, (int, float, torch.Tensor)) else None
