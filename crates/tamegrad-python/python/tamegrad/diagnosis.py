"""What a guard found, to read, print and process."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._core import Guard as Core


_FRAMEWORKS = ("pytorch", "lightning", "transformers", "burn", "keras")


@dataclass(frozen=True)
class Measure:
    """One number that shows a finding; ``str()`` gives it in words."""

    quantity: str
    """What is measured, such as ``gradient-norm``; docs/json.md lists the names."""
    place: str
    """The kind of place it was measured at: ``tensor``, ``layer``, ``loss``, ... or ``run``."""
    name: str | None
    """The name of that tensor or layer."""
    step: int | None
    """The step of the measurement, if it differs from that of the finding."""
    over: int | None
    """How many layers, time steps or steps the value covers, if that matters."""
    value: float
    reference: str | None
    """What the value is compared with: ``limit``, ``usual``, ``before``, ..."""
    against: float | None
    """The value of the reference."""
    text: str
    """The measure in words."""

    def __str__(self) -> str:
        return self.text


def _one_nan(value: Any) -> Any:
    """The same object for every NaN, so that a measure of one is equal to itself."""
    return math.nan if value != value else value


@dataclass(frozen=True)
class Finding:
    """A sign that fired."""

    step: int
    sign: str
    severity: str
    """``alarm``: part of an explosion; ``strain``: worth showing."""
    tensor: str | None
    layer: str | None
    evidence: list[Measure] = field(default_factory=list)
    title: str = ""
    """What has happened, in words."""

    @classmethod
    def _of(cls, row: Any) -> Finding:
        *head, evidence, title = row
        return cls(*head, [Measure(*map(_one_nan, measure)) for measure in evidence], title)


@dataclass(frozen=True)
class Remedy:
    """A change that may help."""

    name: str
    """Its name with what tells its variants apart, such as ``batch-norm-before``."""
    change: str
    why: str
    treats_cause: bool
    kind: str
    """Its name in ``tamegrad explain``, such as ``batch-norm``."""
    grade: str
    """Who carries it out: ``automatic`` (the guard in protect mode), ``on-request`` (one call, or
    ``tamegrad fix``) or ``advice`` (you, in your code or data)."""
    _code: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def _of(cls, row: Any) -> Remedy:
        *head, code = row
        return cls(*head, dict(code))

    def code(self, framework: str = "pytorch") -> str | None:
        """The lines that carry it out in ``pytorch``, ``lightning``, ``transformers``, ``burn`` or
        ``keras``; ``None`` where there is no line to show.

        Raises ``ValueError`` for another framework.
        """
        if framework not in _FRAMEWORKS:
            names = ", ".join(map(repr, _FRAMEWORKS))
            raise ValueError(f"framework: got {framework!r}, want one of {names}")
        return self._code.get(framework)


@dataclass(frozen=True)
class Operation:
    """The operation whose result, or gradient, was the first that was not finite."""

    kind: str
    """What it computes: ``log``, ``sqrt``, ``softmax``, ...; docs/json.md lists the names."""
    name: str
    """The framework's name for it."""
    backward: bool
    """Whether its gradient was not finite, and its result was."""
    module: str | None
    """Dotted path of the module that called it; ``None`` outside the model."""
    file: str | None
    line: int | None
    code: str | None
    """The text of that line."""
    text: str
    """All of it in words."""

    @classmethod
    def _of(cls, found: dict[str, Any]) -> Operation:
        line = found["line"] or {}
        return cls(
            kind=found["kind"],
            name=found["name"],
            backward=found["is_backward"],
            module=found["module"],
            file=line.get("file"),
            line=line.get("line"),
            code=line.get("code"),
            text=found["text"],
        )

    def __str__(self) -> str:
        return self.text


class Report:
    """A report of the core, as text (which IPython shows as well) and as JSON."""

    _core: Any

    def text(self, *, width: int = 100, colour: bool = False) -> str:
        """The report as lines of text."""
        return self._core.text(width=width, colour=colour)

    def to_json(self) -> str:
        """The report as JSON, with NaN and Inf as strings."""
        return self._core.json()

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dictionaries and lists, in the schema of docs/json.md."""
        return json.loads(self.to_json())

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text())}</pre>"


class Diagnosis(Report):
    """Verdict, onset, origin, cause, signs, chain of gains and remedies of a run so far.

    ``place`` is the kind of place of the origin: ``layer``, ``tensor`` or ``data``; or, outside the
    model and without a name, ``loss`` or ``loss-gradient`` (the gradient of the loss with respect to
    the model's output).

    ``str()`` gives all of it as text; a notebook shows the page of :meth:`to_html`.
    """

    def __init__(
        self, core: Core, *, failure: str | None = None, notes: Sequence[str] = ()
    ) -> None:
        self._core = core.copy()
        self.failure = failure
        """Why the guard stopped watching, if an error inside tamegrad stopped it."""
        self.notes = list(notes)
        """What limits the diagnosis, such as gradients that were clipped before the guard saw them."""
        self.verdict, self.onset, self.origin, self.cause, self.place = self._core.summary()

    @property
    def is_explosion(self) -> bool:
        """Whether an explosion was found, even if the run recovered."""
        return self.verdict not in ("healthy", "not-learning", "too-early")

    @property
    def operation(self) -> Operation | None:
        """The operation that made the first value that was not finite, if it is known."""
        found = json.loads(self.to_json())["operation"]
        return None if found is None else Operation._of(found)

    @property
    def first_nonfinite(self) -> dict[str, Any] | None:
        """The first value that was not finite, as in docs/json.md: ``step``, ``stage``, ``place``, the
        stages of that step that were ``finite``, and all of it as ``text``."""
        return json.loads(self.to_json())["first_nonfinite"]

    @property
    def remedies(self) -> list[Remedy]:
        """What to do, best first."""
        return [Remedy._of(row) for row in self._core.remedies()]

    @property
    def findings(self) -> list[Finding]:
        """Every sign that fired, oldest first."""
        return [Finding._of(row) for row in self._core.findings(0)]

    def text(self, *, width: int = 100, colour: bool = False) -> str:
        """The diagnosis as lines of text."""
        head = [f"{self.failure}; it covers only the steps before", ""] if self.failure else []
        notes = [f"note: {note}" for note in self.notes]
        text = super().text(width=width, colour=colour).rstrip("\n")
        return "\n".join([*head, text, *([""] if notes else []), *notes]) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The diagnosis as nested dictionaries and lists, in the schema of docs/json.md."""
        return {**super().to_dict(), "failure": self.failure, "notes": self.notes}

    def to_html(self) -> str:
        """The diagnosis as one HTML page with the curves and the gains of the run so far.

        The page needs no network and runs no script; docs/report.md describes it.
        """
        failure = [f"{self.failure}; it covers only the steps before."] if self.failure else []
        return self._core.html([*failure, *self.notes])

    def _repr_html_(self) -> str:
        # A frame of its own keeps the style of the page and that of the notebook apart.
        page = html.escape(self.to_html())
        return (
            f'<iframe srcdoc="{page}" sandbox title="{html.escape(repr(self))}" '
            'style="width: 100%; height: 40em; border: 0"></iframe>'
        )

    def __repr__(self) -> str:
        parts = [f"verdict={self.verdict!r}"]
        for name in ("onset", "origin", "place", "cause"):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={value!r}")
        return f"Diagnosis({', '.join(parts)})"
