"""Statistics of tensors that lie on another device, with one read-back for all of them."""

from __future__ import annotations

import math

import torch

from ._numbers import Numbers, with_zeros


class Rows:
    """Tensors of a device, two numbers each: L2 norm and largest magnitude.

    ``launch`` starts one asynchronous copy to the CPU, ``finish`` waits for it. A tensor whose
    numbers are not plain (not finite, or so large or small that f32 squares would leave its
    range) is measured again exactly, which waits for the device; in a calm run there is none.
    Zeros and the mean, which no sign reads, are not measured in a calm step: they are given as 0.
    """

    def __init__(self) -> None:
        self._indices: list[int] = []
        self._tensors: list[torch.Tensor] = []
        self._missing: list[int] = []
        self._host: torch.Tensor | None = None
        self._event: torch.cuda.Event | None = None

    def __len__(self) -> int:
        return len(self._tensors)

    def add(self, index: int, tensor: torch.Tensor, missing: int = 0) -> None:
        """Adds a dense real tensor, for the entry ``index``."""
        self._indices.append(index)
        self._tensors.append(tensor)
        self._missing.append(missing)

    def launch(self) -> None:
        """Makes the numbers on the device and starts their way to the CPU."""
        filled = [tensor for tensor in self._tensors if tensor.numel()]
        if not filled:
            return
        home = filled[0].device
        rows = []
        for tensors in _by_device_and_type(filled).values():
            norms = torch._foreach_norm(tensors, 2, dtype=_wide(tensors[0].dtype))
            largest = torch._foreach_norm(tensors, math.inf)
            rows.append(torch.stack([torch.stack(norms), torch.stack(largest).to(norms[0].dtype)]))
        moved = [
            part.to(home, torch.float64 if home.type != "mps" else torch.float32) for part in rows
        ]
        device_rows = torch.cat(moved, dim=1)
        pinned = home.type == "cuda"
        self._host = torch.empty(device_rows.shape, dtype=device_rows.dtype, pin_memory=pinned)
        self._host.copy_(device_rows, non_blocking=True)
        if pinned:
            self._event = torch.cuda.Event()
            self._event.record()

    def finish(self, scan) -> None:
        """Puts the numbers into the entries of ``scan``, and forgets the tensors."""
        if self._event is not None:
            self._event.synchronize()
        order: dict[int, tuple[float, float]] = {}
        if self._host is not None:
            groups = _by_device_and_type([t for t in self._tensors if t.numel()]).values()
            flat = [tensor for group in groups for tensor in group]
            for tensor, l2, largest in zip(flat, *self._host.tolist(), strict=True):
                order[id(tensor)] = (l2, largest)
        for index, tensor, missing in zip(self._indices, self._tensors, self._missing, strict=True):
            scan.put(index, with_zeros(_numbers(tensor, order.get(id(tensor))), missing))
        self.__init__()


def exact(tensor: torch.Tensor) -> Numbers:
    """The seven numbers of a dense real tensor of any device, by its own operations.

    The norm never overflows: elements are divided by the largest finite one first. Waits for the
    device.
    """
    values = tensor.detach().reshape(-1)
    if not values.numel():
        return 0, 0, 0, 0, 0.0, 0.0, 0.0
    finite = torch.isfinite(values)
    wide = values.to(torch.float64) if values.device.type != "mps" else values.float()
    kept = torch.where(finite, wide, torch.zeros_like(wide))
    largest = kept.abs().max()
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    norm = torch.linalg.vector_norm(kept / scale) * scale
    counts = [torch.isnan(values).sum(), torch.isinf(values).sum(), (values == 0).sum()]
    mean = (kept / scale).sum() * scale / finite.sum().clamp(min=1)
    row = torch.stack([*(count.to(norm.dtype) for count in counts), norm, largest, mean]).tolist()
    nans, infs, zeros = (int(count) for count in row[:3])
    return values.numel(), nans, infs, zeros, row[3], row[4], row[5]


def updates(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[tuple[float, float, int, int]]:
    """Norm of the change, norm before it, elements and non-finite elements of each pair of a
    tensor before and after an update; one read-back for all."""
    if not pairs:
        return []
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    wide = [old.to(_wide(old.dtype)) for old in before]
    changes = torch._foreach_sub([new.to(_wide(new.dtype)) for new in after], wide)
    rows = []
    for tensors in (changes, wide, after):
        norms = [
            torch.linalg.vector_norm(t, dtype=_wide(t.dtype)) if t.numel() else t.new_zeros(())
            for t in tensors
        ]
        rows.append(torch.stack([norm.to(norms[0].device, norms[0].dtype) for norm in norms]))
    numbers = torch.stack([row.to(rows[0].dtype) for row in rows]).tolist()
    found = []
    for place, (change, was, now) in enumerate(zip(*numbers, strict=True)):
        nonfinite = 0
        if not all(map(math.isfinite, (change, was, now))):
            change, was = exact(changes[place])[4], exact(wide[place])[4]
            counts = exact(after[place])
            nonfinite = counts[1] + counts[2]
        found.append((change, was, after[place].numel(), nonfinite))
    return found


def names(parameters: list[torch.Tensor]) -> str:
    """The devices that hold the parameters, in words."""

    def name(device: torch.device) -> str:
        return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type

    return ", ".join(sorted({name(device) for device in {p.device for p in parameters}}))


def _numbers(tensor: torch.Tensor, row: tuple[float, float] | None) -> Numbers:
    if row is None:
        return 0, 0, 0, 0, 0.0, 0.0, 0.0
    l2, largest = row
    plain = (
        math.isfinite(l2) and math.isfinite(largest) and (largest == 0.0 or 1e-15 < largest < 1e15)
    )
    if not plain:
        return exact(tensor)
    return tensor.numel(), 0, 0, 0, l2, largest, 0.0


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _by_device_and_type(tensors: list[torch.Tensor]) -> dict:
    groups: dict = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    return groups
