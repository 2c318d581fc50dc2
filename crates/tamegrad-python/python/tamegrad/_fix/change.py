"""A change of a training run, as data: what a trial applies, the table shows and the journal keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import _core


class CannotApply(Exception):
    """A change does not apply to this objective; the text says why and what would help."""


@dataclass(frozen=True)
class Change:
    """One change. ``kind`` and ``parameters`` are those of ``change`` in docs/json.md; kinds that only
    this search knows are listed in docs/fix.md."""

    kind: str
    parameters: Mapping[str, Any]
    label: str
    """Its name with what tells its variants apart, such as ``batch-norm-before``."""
    text: str
    """What it does, in words."""
    code: Mapping[str, str] = field(default_factory=dict)
    """The lines that carry it out, by framework."""
    treats_cause: bool = False
    """Whether it treats what the diagnosis names as the cause."""

    def to_dict(self) -> dict[str, Any]:
        """The change for JSON."""
        return asdict(self)

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> Change:
        """The change that :meth:`to_dict` gave."""
        return cls(**values)

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]


def own(kind: str, label: str, text: str, code: str, *, treats_cause=False, **parameters) -> Change:
    """A change that the diagnosis does not propose itself, with its line of PyTorch. Lightning and
    Transformers run the same line where they give access to model and optimizer."""
    return Change(kind, parameters, label, text, {"pytorch": code}, treats_cause)


@dataclass(frozen=True)
class Case:
    """What the unchanged training has shown, from which the changes propose themselves."""

    causes: tuple[str, ...]
    """The supported causes, best first."""
    proposed: tuple[Change, ...]
    """What the diagnosis proposes, best first."""
    groups: tuple[Mapping[str, Any], ...]
    """The parameter groups of the optimizers: ``lr``, ``momentum``, ``betas``, ``weight_decay``, ..."""
    rates: tuple[float, float] | None
    """The largest learning rate half-way to the onset, and at the onset."""
    knobs: Mapping[str, Any]
    """What the objective offers, with the values as given."""
    layers: int = 0
    """Linear and convolutional layers of the model."""
    norms: int = 0
    """Modules that normalise."""
    is_recurrent: bool = False
    """Whether the model has a recurrent module."""

    def proposes(self, kind: str) -> Change | None:
        """The first proposal of a kind."""
        return next((change for change in self.proposed if change.kind == kind), None)

    def is_treated_by(self, remedy: str) -> bool:
        """Whether a remedy of the core treats the best supported cause, as in ``tamegrad explain``."""
        return bool(self.causes) and self.causes[0] in dict(_core.remedies())[remedy]
