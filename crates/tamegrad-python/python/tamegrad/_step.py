"""Where in a training step the loop is, and what is known of that step."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field


class Phase(enum.Enum):
    """How far a step has come. It goes through the first three in their order, or ends in one of the
    others."""

    COMING = enum.auto()
    """Its gradients were not read yet."""
    READ = enum.auto()
    """They were read, and the core has not judged them."""
    JUDGED = enum.auto()
    """The core has judged them; updates may follow."""
    DEFERRED = enum.auto()
    """Their numbers are on the way from a device: the core judges them one step later."""
    UNWATCHED = enum.auto()
    """A loss scaler leaves the step out after an overflow that a lower scale may mend, and the guard takes no
    notice of it."""


@dataclass
class Step:
    """One training step. A new one takes its place when it ends."""

    number: int
    phase: Phase = Phase.COMING
    is_left_out: bool = False
    """Whether the optimizers shall see no gradients."""
    nonfinite: int = 0
    """Elements of the gradients that are NaN or infinite, as far as they are known."""
    gradient_is_nan: bool = False
    """Whether the backward pass was stopped because one is NaN."""
    clipped_to: float | None = None
    """The norm that the optimizers will see at most."""
    stepped: set[int] = field(default_factory=set)
    """Ids of the optimizers whose update was begun."""

    def move(self, to: Phase) -> None:
        """Goes on to a phase.

        Raises ``RuntimeError`` where that does not follow the one it is in.
        """
        if self.phase not in _BEFORE[to]:
            raise RuntimeError(f"step {self.number}: {to.name} cannot follow {self.phase.name}")
        self.phase = to


_BEFORE = {
    Phase.READ: (Phase.COMING,),
    Phase.JUDGED: (Phase.READ, Phase.DEFERRED),
    Phase.DEFERRED: (Phase.READ,),
    Phase.UNWATCHED: (Phase.COMING, Phase.READ, Phase.JUDGED),
}
