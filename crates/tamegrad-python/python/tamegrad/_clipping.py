"""Notices that somebody else has clipped the gradients before they are read."""

from __future__ import annotations

_STEPS = 10
"""Steps in a row at the same norm that no unclipped run shows."""
_SAME = 5e-6


class Ceiling:
    """Counts steps whose gradient norm is the same number."""

    def __init__(self) -> None:
        self.norm = 0.0
        self._steps = 0

    def reached(self, norm: float) -> bool:
        """Takes in a norm; true once, when the last ten were the same."""
        if norm > 0.0 and abs(norm - self.norm) <= _SAME * self.norm:
            self._steps += 1
        else:
            self.norm, self._steps = norm, 1
        return self._steps == _STEPS
