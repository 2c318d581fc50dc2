"""The knobs of a trial: what the objective asks it for, with the value of the training as given."""

from __future__ import annotations

from typing import Any, TypeVar

from .changes import BY_KIND
from .outcome import Task

Value = TypeVar("Value")


class Knobs:
    """Each method takes the value of the training as given and returns the one that this trial uses.

    A knob may be asked for several times, such as the rates of two parameter groups.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.offered: dict[str, Any] = {}
        """The knobs that the objective has asked for, with the first value given."""
        self.turned: set[str] = set()
        """Kinds of the changes that a knob has carried out."""

    # --- the model ---------------------------------------------------------------------------

    def depth(self, layers: int) -> int:
        """Number of hidden layers or blocks."""
        return self._turn("depth", layers)

    def width(self, units: int) -> int:
        """Units of a hidden layer."""
        return self._turn("width", units)

    def activation(self, activation: Value) -> Value:
        """A name such as ``"relu"``, a class such as ``nn.ReLU``, a module, or a function of a tensor;
        the answer has the same form."""
        return self._turn("activation", activation)

    def norm(self, name: str = "none") -> str:
        """``"none"``, ``"batch"`` or ``"layer"``, for a model that can build either."""
        return self._turn("norm", name)

    def dtype(self, dtype: Value) -> Value:
        """The number type of the model or of autocast."""
        return self._turn("dtype", dtype)

    # --- the optimizer -----------------------------------------------------------------------

    def rate(self, rate: float) -> float:
        """Learning rate."""
        return self._turn("rate", rate)

    def momentum(self, momentum: float) -> float:
        """Momentum of SGD, or the first beta of Adam."""
        return self._turn("momentum", momentum)

    def weight_decay(self, decay: float) -> float:
        """Weight decay."""
        return self._turn("weight_decay", decay)

    def eps(self, eps: float) -> float:
        """What the optimizer adds to its divisor."""
        return self._turn("eps", eps)

    def clip_norm(self, max_norm: float) -> float:
        """The largest norm of the whole gradient, for a loop that clips."""
        return self._turn("clip_norm", max_norm)

    def warmup_steps(self, steps: int) -> int:
        """Steps over which a schedule warms up."""
        return self._turn("warmup_steps", steps)

    # --- the loop ----------------------------------------------------------------------------

    def batch_size(self, samples: int) -> int:
        """Samples in a batch."""
        return self._turn("batch_size", samples)

    def steps(self, steps: int) -> int:
        """Number of batches of the whole training. With it, or with :meth:`epochs`, trials can be
        shorter than the training."""
        self.offered.setdefault("steps", int(steps))
        if self._task.shorten == "steps" and self._task.part < 1.0:
            return max(1, round(steps * self._task.part))
        return steps

    def epochs(self, epochs: int) -> int:
        """Number of passes over the loader in the whole training."""
        self.offered.setdefault("epochs", int(epochs))
        if self._task.shorten == "steps" and self._task.part < 1.0:
            return max(1, round(epochs * self._task.part))
        return epochs

    def _turn(self, name: str, given: Any) -> Any:
        self.offered.setdefault(name, given)
        for change in self._task.changes:
            module = BY_KIND[change.kind]
            if getattr(module, "KNOB", None) == name:
                given = module.turn(change, given)
                self.turned.add(change.kind)
        return given
