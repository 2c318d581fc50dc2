"""Statistics of gradients that the extension module cannot read in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from . import _device
from ._numbers import Numbers, with_zeros
from ._ranks import local_shard

if TYPE_CHECKING:
    from ._core import Scan


def read(scan: Scan, parameters: list[torch.Tensor], rows: _device.Rows | None = None) -> None:
    """Reads every parameter's gradient into ``scan``, an entry each.

    What does not lie densely in the CPU's memory is brought into a form that can be read; tensors
    of another device are added to ``rows``, whose numbers come with one read-back.
    """
    for index in scan.gradients(parameters):
        gradient = parameters[index].grad
        if gradient is not None:
            put(scan, index, gradient, rows)


def put(scan: Scan, index: int, tensor: torch.Tensor, rows: _device.Rows | None = None) -> None:
    """Reads one tensor of any kind into an entry of ``scan``."""
    dense, missing = values_of(tensor.detach())
    is_meta = dense.device.type == "meta"
    if rows is not None and dense.numel() and dense.device.type != "cpu" and not is_meta:
        rows.add(index, dense, missing)
        return
    numbers = numbers_of(scan, dense)
    if numbers is not None:
        scan.put(index, with_zeros(numbers, missing))
    elif not is_meta:
        raise TypeError(
            f"gradient of {tuple(dense.shape)}, {dense.dtype}, {dense.layout} cannot be read"
        )


def numbers_of(scan: Scan, dense: torch.Tensor) -> Numbers | None:
    """The numbers of a dense real tensor of any device; ``None`` of one that holds none."""
    if dense.device.type == "meta":
        return None
    is_here = dense.device.type == "cpu" and dense.numel()
    return scan.numbers_of(dense) if is_here else _device.exact(dense)


def values_of(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    """The elements of a tensor as a dense real one of a type that can be read, and how many zeros
    are left out.

    Of a sparse tensor these are its values (duplicates added up), of a sharded one the local
    shard; a complex element counts as two real ones.
    """
    missing = 0
    tensor = local_shard(tensor)
    if tensor.layout != torch.strided:
        elements = tensor.numel()
        tensor = tensor.coalesce() if tensor.layout == torch.sparse_coo else tensor
        tensor = tensor.values()
        missing = elements - tensor.numel()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
        missing *= 2
    if not tensor.is_floating_point() or tensor.element_size() < 2:
        tensor = tensor.float()
    if not _is_dense(tensor):
        tensor = tensor.contiguous()
    return tensor, missing


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements lie in one stretch, each once, in whatever order of dimensions."""
    if tensor.is_contiguous():
        return True
    expected = 1
    dims = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted(dim for dim in dims if dim[1] != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def scale(scan: Scan, parameters: list[torch.Tensor], factors: float | list[float]) -> None:
    """Multiplies gradients in place, and tells torch that they have changed.

    Non-finite elements stay as they are.
    """
    every = isinstance(factors, (int, float))
    unreached = set(scan.scale_gradients(parameters, factors))
    written = []
    for index, parameter in enumerate(parameters):
        factor = factors if every else factors[index]
        gradient = parameter.grad
        if gradient is None or factor == 1.0:
            continue
        if index in unreached:
            gradient.mul_(factor)
        else:
            written.append(gradient)
    if written:
        torch.autograd.graph.increment_version(written)
