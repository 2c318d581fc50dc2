"""How the gradient grows from call to call of a module that is given what it has made itself."""

from __future__ import annotations

import bisect
import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ._calls import Call, leads_to

STEPS_MIN = 3
"""Calls from which on there is a recurrence: two are a cycle, or a network on top of itself, and between them
is one gain, which tells nothing of growth from step to step."""
_ONE_LINK = 0.9
"""The share of the growth, by its logarithm, from which on one link has made it."""
_CALLS_MAX = 4096
"""Calls of one module whose nodes are kept."""
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


@dataclass
class MadeCalls:
    """The calls of one module that are too many to be kept: the first two, the last, and what each of them
    has made of the graph."""

    firsts: list[Call] = field(default_factory=list)
    last: Call | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)

    def add(self, call: Call) -> None:
        """Takes in the next call."""
        if len(self.firsts) < 2:
            self.firsts.append(call.without_arguments())
        self.last = call
        if len(self.spans) < _CALLS_MAX:
            self.spans.append(call.nodes)


@dataclass(frozen=True)
class _Chain:
    """Calls of one module, each of which is given what has come of the one before."""

    count: int
    first: Call
    last: Call


def of_calls(calls: Sequence[Call], before: Mapping[nn.Module, MadeCalls]) -> TimeSteps | None:
    """The time steps that a loop makes by calling a module again and again on what has come of its earlier
    calls, after its backward pass; ``before`` are the calls in front of ``calls``, by module. Others may
    come between: an encoder, a head. Of several modules that with the longest chain counts."""
    modules = dict.fromkeys([*before, *(call.module for call in calls)])
    chains = [_chain([call for call in calls if call.module is m], before.get(m)) for m in modules]
    known = [chain for chain in chains if chain is not None]
    if not known:
        return None
    chain = max(known, key=lambda chain: chain.count)
    ends = chain.first.gradients.values(), chain.last.gradients.values()
    return time_steps(None, chain.count, *ends)


def _chain(own: list[Call], before: MadeCalls | None) -> _Chain | None:
    """The longest chain that ends with the last call that ends one."""
    early = [*before.firsts, before.last] if before else []
    kept = [call for call in (*early, *own) if call is not None and call.gradients]
    spans = sorted({*(before.spans if before else ()), *(call.nodes for call in kept)})
    if len(spans) < STEPS_MIN:
        return None
    for last in reversed(kept):
        counts = _lengths(last, spans)
        known = [(counts[call.nodes], call) for call in kept if call.nodes in counts]
        count, first = max(known, key=lambda one: one[0], default=(0, last))
        if count >= STEPS_MIN:
            is_jump = _is_of_one_link([(1, last), *known])
            return None if is_jump else _Chain(count, first, last)
    return None


def _is_of_one_link(places: list[tuple[int, Call]]) -> bool:
    """Whether the gradient has grown at one link alone, as far as that is known of calls with their places
    in a chain: of a batch that weighs far more than the others, and is tied to them by next to nothing."""
    largest = torch.finfo(torch.float32).max
    norms = {place: min(_norm(call.gradients.values()), largest) for place, call in places}
    if not all(norm > 0.0 for norm in norms.values()):
        return False
    grown = math.log(norms[max(norms)] / norms[min(norms)])
    links = [math.log(norms[p + 1] / norms[p]) for p in norms if p + 1 in norms]
    return 0.0 < _ONE_LINK * grown < max(links, default=0.0)


def _lengths(last: Call, spans: list[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """For each call from which the last was made, how many there are on the longest way from one to the
    other; the calls by the nodes that they have made, in order. A node has a larger number than those from
    which it was made."""
    starts = [start for start, _ in spans]

    def span_of(node: Any) -> tuple[int, int] | None:
        number = node._sequence_nr()
        place = bisect.bisect_right(starts, number) - 1
        return spans[place] if place >= 0 and number < spans[place][1] else None

    counts: dict[tuple[int, int], int] = {}
    met: dict[Any, tuple[tuple[int, int] | None, int]] = {}
    queue: list[tuple[int, int, Any]] = []

    def meet(nodes: list[Any], span: tuple[int, int] | None, count: int) -> None:
        for node in nodes:
            if node is None or node._sequence_nr() < starts[0]:
                continue
            known = met.get(node)
            if known is None:
                heapq.heappush(queue, (-node._sequence_nr(), len(met), node))
            own, most = known or (span_of(node), 0)
            met[node] = own, max(most, count + (own not in (None, span)))

    meet([tensor.grad_fn for _, tensor in last.inputs], last.nodes, 1)
    while queue and len(met) < _NODES_MAX:
        node = heapq.heappop(queue)[2]
        span, count = met[node]
        if span is not None:
            counts[span] = max(count, counts.get(span, 0))
        meet([made_of for made_of, _ in node.next_functions], span, count)
    return counts


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


def _norm(gradients: Any) -> float:
    return float(torch.nn.utils.get_total_norm([gradient.detach() for gradient in gradients]))
