"""Before the first update: gains, headroom, and the size of the first step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from . import _gradients
from ._core import (
    PREFLIGHT_NORM_MAX,
    PREFLIGHT_PRODUCT_MAX,
    PREFLIGHT_UPDATE_MAX,
    Scan,
    is_judged,
    preflight_headroom_min,
)
from ._probes import Probes, watching
from ._state import random_state, set_random_state

_USUAL = (0.5, 2.0)
"""Gains outside of which a layer is marked."""


@dataclass(frozen=True)
class LayerGain:
    """What one layer does to the signal: RMS of its output over that of the layer before, and the
    gradient's norm at that layer over the norm at this one."""

    name: str
    forward: float
    backward: float

    @property
    def is_marked(self) -> bool:
        """Whether a gain lies outside of [0.5, 2]."""
        known = [gain for gain in (self.forward, self.backward) if gain == gain]
        return any(not _USUAL[0] <= gain <= _USUAL[1] for gain in known)


@dataclass(frozen=True)
class Preflight:
    """What one pass on one batch shows before anything is trained."""

    loss: float
    gradient_norm: float
    nonfinite_at: str | None
    """The first layer with an output that is not finite, else the loss or a parameter."""
    layers: list[LayerGain]
    headroom: float
    """Largest value of the type over the largest output."""
    update_ratio: float | None
    """Largest change of a weight matrix over its size in the first step, with an optimizer."""
    update_name: str | None = None
    problems: list[str] = field(default_factory=list)
    headroom_min: float = 1.0
    """Headroom under which there is a problem: an eighth of the powers of 2 that the type has."""

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against the start."""
        return not self.problems

    def __str__(self) -> str:
        lines = [f"loss {self.loss:.4g}, gradient norm {self.gradient_norm:.4g}"]
        for layer in self.layers:
            if layer.is_marked:
                gains = f"forward {layer.forward:.3g}, backward {layer.backward:.3g}"
                lines.append(f"  {layer.name}: {gains}")
        if self.update_ratio is not None:
            lines.append(
                f"first step changes {self.update_name} by {self.update_ratio:.2g} times its size"
            )
        lines += [f"PROBLEM  {problem}" for problem in self.problems] or [
            "nothing speaks against it"
        ]
        return "\n".join(lines)


def preflight(
    model: nn.Module,
    loss_fn: Callable[..., torch.Tensor],
    batch: Any,
    optimizer: torch.optim.Optimizer | None = None,
) -> Preflight:
    """Runs one pass on a copy of the model and tells what would go wrong.

    ``loss_fn(model, batch)`` gives the loss. With an optimizer, a copy of it takes one step on the
    copy. The model, its gradients, buffers and the random state stay as they are.
    """
    chance = random_state()
    try:
        twin, twin_optimizer = copy.deepcopy((model, optimizer))
        twin.zero_grad(set_to_none=True)
        probes = Probes(twin)
        with watching(probes), torch.enable_grad():
            loss = loss_fn(twin, batch)
            loss.backward()
        trace = probes.collect()
        names, parameters = zip(*twin.named_parameters(), strict=True)
        scan = Scan()
        _gradients.read(scan, list(parameters))
        ratio, where = _first_update(twin, names, parameters, twin_optimizer)
    finally:
        set_random_state(chance)
    gains = _gains(probes, trace)
    broken = _broken(probes, trace, loss, names, scan)
    largest = max(_largest(trace, len(probes.layers)), 1e-300)
    dtype_max = probes.dtype_max or torch.finfo(torch.float32).max
    found = Preflight(
        float(loss.detach()),
        scan.norm(),
        broken,
        gains,
        dtype_max / largest,
        ratio,
        where,
        headroom_min=2.0 ** preflight_headroom_min(dtype_max),
    )
    found.problems.extend(_problems(found))
    return found


def _gains(probes: Probes, trace: Any) -> list[LayerGain]:
    if trace is None:
        return []
    outputs, deltas = trace.output_rms(), trace.delta_norms()
    gains = []
    for index, layer in enumerate(probes.layers):
        forward = backward = math.nan
        own = trace.get_input(index)
        if own is not None:
            # The gradient of an input that other layers share is not this layer's.
            size = own[4] / math.sqrt(max(own[0] - own[1] - own[2], 1))
            forward = outputs[index] / size if size > 0 else math.nan
        elif index and outputs[index - 1] > 0:
            forward = outputs[index] / outputs[index - 1]
        if own is None and index and deltas[index] > 0:
            backward = deltas[index - 1] / deltas[index]
        gains.append(LayerGain(layer[0], forward, backward))
    return gains


def _broken(probes: Probes, trace: Any, loss: torch.Tensor, names: Any, scan: Scan) -> str | None:
    place = None if trace is None else trace.first_nonfinite_output()
    if place is not None:
        return probes.layers[place][0]
    if not torch.isfinite(loss).all():
        return "the loss"
    index = scan.first_nonfinite()
    return None if index is None else f"the gradient of {names[index]}"


def _largest(trace: Any, count: int) -> float:
    return 0.0 if trace is None else max(trace.output_largest()[:count], default=0.0)


@torch.no_grad()
def _first_update(
    model: nn.Module, names: Any, parameters: Any, optimizer: torch.optim.Optimizer | None
) -> tuple[float | None, str | None]:
    if optimizer is None:
        return None, None
    before = [p.detach().clone() for p in parameters]
    optimizer.step()
    largest, where = 0.0, None
    for name, old, new in zip(names, before, parameters, strict=True):
        if old.dim() < 2 or not old.any():
            continue
        norm = float(old.double().norm())
        if not is_judged(norm, old.numel(), old.numel() // old.shape[0]):
            continue
        ratio = float((new - old).double().norm() / old.double().norm())
        if where is None or not ratio <= largest:
            largest, where = ratio, name
    return (largest, where) if where is not None else (None, None)


def _problems(found: Preflight) -> list[str]:
    problems = []
    if found.nonfinite_at is not None:
        problems.append(f"{found.nonfinite_at} is not finite in the first pass")
    for side in ("forward", "backward"):
        gains = [getattr(layer, side) for layer in found.layers]
        logs = [math.log(gain) for gain in gains if 0 < gain < math.inf]
        product = math.exp(min(sum(logs), 700.0))
        if product > PREFLIGHT_PRODUCT_MAX:
            problems.append(
                f"the {side} gains multiply to {product:.3g}: initialise anew or normalise"
            )
    if found.gradient_norm > PREFLIGHT_NORM_MAX:
        problems.append(
            f"the gradient norm is {found.gradient_norm:.3g}: no gradient to begin with"
        )
    if found.headroom < found.headroom_min and found.nonfinite_at is None:
        problems.append(f"the largest output is within {found.headroom:.2g} of its type's maximum")
    if found.update_ratio is not None and not found.update_ratio <= PREFLIGHT_UPDATE_MAX:
        problems.append(
            f"the first step changes {found.update_name} by {found.update_ratio:.2g} times its size: "
            "lower the learning rate or warm up"
        )
    return problems
