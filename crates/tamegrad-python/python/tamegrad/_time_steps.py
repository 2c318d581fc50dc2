"""How the gradient grows from call to call of a module that is given what it has made itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ._calls import Call, leads_to

_NODES_MAX = 10_000
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
    """The calls of a pass that are too many to be kept: the first, and how many there were."""

    first: Call
    count: int


def of_calls(calls: Sequence[Call], before: MadeCalls | None) -> TimeSteps | None:
    """The time steps that a loop makes by calling its model again and again, after its backward pass;
    ``before`` are those in front of ``calls``."""
    module = calls[-1].module if calls else None
    own = [call for call in calls if call.module is module and call.gradients]
    if len(own) < 2 or not _is_given(own[-1], own[-2]):
        return None
    first, count = own[0], len(own)
    if before is not None and before.first.module is module and before.first.gradients:
        first, count = before.first, count + before.count
    return time_steps(None, count, first.gradients.values(), own[-1].gradients.values())


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
