"""What modules hold beside their parameters, as the last good step left it: running means of batch norm,
queues, carried states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ._versions import keeping_versions

_ATTRIBUTE_BYTES_MAX = 1 << 26
"""Bytes of an attribute that is copied; a larger one is a data set rather than a state."""


class CalmBuffers:
    """Copies of a model's float buffers and of the smaller float tensors among its modules' attributes,
    which a forward pass changes before a step is judged.

    They are known by module and name, for a pass may write to a tensor or put another in its place.
    ``None`` in place of the model keeps nothing.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self._model = model
        self._kept: dict[tuple[nn.Module, str], tuple[torch.Tensor, torch.Tensor]] = {}
        """The tensor that was there, and its copy."""
        self.keep()

    def keep(self) -> None:
        """Copies what is there now, into the memory of what was kept before where it fits."""
        before, self._kept = self._kept, {}
        targets, sources = [], []
        for place, holder, name in self._places():
            tensor = holder[name]
            source = tensor.detach()
            _, copy = before.get(place, (None, None))
            if copy is None or not _fits(copy, source):
                copy = source.clone()
            else:
                # Not by the version of the tensor: batch norm does not count its writes.
                targets.append(copy)
                sources.append(source)
            self._kept[place] = tensor, copy
        if targets:
            torch._foreach_copy_(targets, sources)

    def restore(self) -> None:
        """Makes everything what it was when it was kept. What has changed its shape since stays."""
        for place, holder, name in self._places():
            if place not in self._kept:
                continue
            was, copy = self._kept[place]
            if _fits(was, holder[name]):
                holder[name] = was
            target = holder[name]
            if target.shape == copy.shape:
                with keeping_versions([target]):
                    target.detach().copy_(copy)

    def _places(self) -> Iterator[tuple[tuple[nn.Module, str], dict[str, Any], str]]:
        for module in self._model.modules() if self._model is not None else ():
            for holder in (module._buffers, module.__dict__):
                for name, value in holder.items():
                    if not isinstance(value, torch.Tensor) or not _is_kept(value):
                        continue
                    if holder is module._buffers or value.nbytes <= _ATTRIBUTE_BYTES_MAX:
                        yield (module, name), holder, name


def _is_kept(tensor: torch.Tensor) -> bool:
    is_plain = tensor.layout == torch.strided and not isinstance(tensor, nn.Parameter)
    return is_plain and tensor.is_floating_point() and tensor.device.type != "meta"


def _fits(tensor: torch.Tensor, other: torch.Tensor) -> bool:
    is_alike = tensor.dtype == other.dtype and tensor.device == other.device
    return is_alike and tensor.shape == other.shape
