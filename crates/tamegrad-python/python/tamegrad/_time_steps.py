"""How the gradient grows from call to call of a module that is given what it has made itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ._calls import Call, leads_to

STEPS_MIN = 3
"""Calls from which on there is a recurrence: two are a cycle, or a network on top of itself."""
_NODES_MAX = 100_000
"""Nodes of the graph that are looked at on the way from an input to an earlier output."""


@dataclass(frozen=True)
class TimeSteps:
    """Calls of one module in a pass, each of which is given what the one before has made."""

    layer: int | None
    calls: int
    norm_of_first: float
    """Norm of the gradient at the output of the first of them."""
    norm_of_last: float


@dataclass(frozen=True)
class MadeCalls:
    """The calls of one module that are too many to be kept: the first, the last, and how many there were."""

    first: Call
    last: Call
    count: int


def of_calls(calls: Sequence[Call], before: Mapping[nn.Module, MadeCalls]) -> TimeSteps | None:
    """The time steps that a loop makes by calling a module again and again on what has come of its earlier
    calls, after its backward pass; ``before`` are the calls in front of ``calls``, by module. Others may
    come between: an encoder, a head. Of several modules that with the longest chain counts."""
    modules = dict.fromkeys([*before, *(call.module for call in calls)])
    chains = [_chain([call for call in calls if call.module is m], before.get(m)) for m in modules]
    known = [chain for chain in chains if chain is not None]
    if not known:
        return None
    count, first, last = max(known, key=lambda chain: chain[0])
    return time_steps(None, count, first.gradients.values(), last.gradients.values())


def _chain(own: list[Call], before: MadeCalls | None) -> tuple[int, Call, Call] | None:
    """How many calls of one module there are from the first from which the last was made, and these two."""
    own = [call for call in own if call.gradients]
    counts = list(range(len(own), 0, -1))
    if before is not None and before.first.gradients:
        counts = [before.count + len(own), 1 + len(own), *counts]
        own = [before.first, before.last, *own]
    for first, count in zip(own[:-1], counts, strict=False):
        if count >= STEPS_MIN and _is_given(own[-1], first):
            return count, first, own[-1]
    return None


def time_steps(layer: int | None, count: int, first: Any, last: Any) -> TimeSteps | None:
    """From the gradients at the outputs of the first and the last call, unless they are NaN, or that of the
    last is not finite: what overflows is what has grown on the way back."""
    norm_of_first, norm_of_last = _norm(first), _norm(last)
    if math.isnan(norm_of_first) or not math.isfinite(norm_of_last):
        return None
    return TimeSteps(layer, count, norm_of_first, norm_of_last)


def is_fed(given: Sequence[torch.Tensor], output: torch.Tensor) -> bool:
    """Whether one of these tensors was made from another."""
    made_by = output.grad_fn
    nodes = [tensor.grad_fn for tensor in given]
    return made_by is not None and leads_to(nodes, lambda node: node is made_by, _NODES_MAX)


def _is_given(call: Call, before: Call) -> bool:
    start, end = before.nodes
    nodes = [tensor.grad_fn for _, tensor in call.inputs]
    return leads_to(nodes, lambda node: start <= node._sequence_nr() < end, _NODES_MAX)


def _norm(gradients: Any) -> float:
    return float(torch.nn.utils.get_total_norm([gradient.detach() for gradient in gradients]))
