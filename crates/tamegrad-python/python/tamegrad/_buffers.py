"""The model's buffers as the last good step left them: running means and variances of batch norm."""

from __future__ import annotations

import torch
from torch import nn


class CalmBuffers:
    """Copies of a model's float buffers, which a forward pass changes before a step is judged.

    ``None`` in place of the model keeps nothing.
    """

    def __init__(self, model: nn.Module | None) -> None:
        buffers = model.buffers() if model is not None else ()
        self._buffers = [b for b in buffers if b.is_floating_point() and b.layout == torch.strided]
        self._kept = [buffer.detach().clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Copies the buffers as they are, in place of what was kept before."""
        if self._buffers:
            torch._foreach_copy_(self._kept, [b.detach() for b in self._buffers])

    def restore(self) -> None:
        """Makes the buffers what they were when they were kept."""
        if self._buffers:
            torch._foreach_copy_([b.detach() for b in self._buffers], self._kept)
