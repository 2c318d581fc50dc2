"""The versions by which autograd knows that a tensor was written to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch


@contextlib.contextmanager
def keeping_versions(tensors: Iterable[torch.Tensor]) -> Iterator[None]:
    """Lets writes go unseen: the loop may hold a graph through the tensors (a generator's, while its
    critic steps), whose backward pass would refuse a newer version."""
    before = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]
    yield
    for tensor, version in before:
        set_version(tensor, version)


def set_version(tensor: torch.Tensor, version: int) -> None:
    """Gives a tensor its former version, where torch lets it."""
    with contextlib.suppress(RuntimeError, AttributeError):
        torch._C._autograd._unsafe_set_version_counter((tensor,), (version,))
