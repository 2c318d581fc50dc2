"""An incomplete last batch of an epoch is left out."""

from __future__ import annotations

from typing import Any

from ..batches import rows_of
from ..change import CannotApply

KIND = "drop-last-batch"
FAMILY = "data"


def apply(change, trial, model, optimizers) -> None:
    """Drops what is shorter than the first batch."""
    if not trial.uses("batches"):
        raise CannotApply("take the batches from trial.batches(loader)")
    first: list[int] = []

    def drop(batch: Any) -> Any:
        rows = rows_of(batch)
        if rows is None:
            return batch
        first.append(rows) if not first else None
        return batch if rows >= first[0] else None

    trial.on_batch(drop)
