"""The loss outside the model: which of its operations is not finite, by the graph that autograd keeps."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ._calls import leads_to
from ._finder import saved_tensors
from ._operations import (
    Labels,
    Line,
    MeasuredOperation,
    Operand,
    TargetRange,
    count_of_inf,
    has_nan,
    is_finite,
    labels_of,
    largest_of,
    line_at,
    name_and_kind,
    operand_of,
    place_in_text,
    target_range_of,
)

_NODES_MAX = 256
"""Nodes of a loss that are looked at."""
_CALLS_MAX = 64
"""Calls of the model in one step that are told from the loss."""
_LEARNT_STEPS = 3
"""Steps after which the operations of a loss are taken as known."""
_SINGULAR = ("log", "sqrt", "std", "division", "power", "inverse-trigonometric")
"""Kinds whose derivative, or result, is not finite somewhere."""
_OPERANDS = {
    "multiply": (("self",), ("other",)),
    "matmul": (("self", "mat1"), ("mat2",)),
}
"""The names under which nodes may keep their operands."""


@dataclass
class _Node:
    """A node of the graph of a loss."""

    node: Any
    path: str
    """The names on the way to it from the loss: the same in every step."""
    name: str
    kind: str
    number: int
    dtype: torch.dtype | None
    """The type of its result."""
    saved: dict[str, torch.Tensor] = field(default_factory=dict)
    """What it has kept for the backward pass, and still has."""
    given: list[_Node | None] = field(default_factory=list)
    """What has made what it was given, in the order of its operands; ``None`` outside the loss."""

    def number_of(self, name: str) -> Any:
        """A number that it has kept, which stays when the backward pass is over."""
        try:
            return getattr(self.node, f"_saved_{name}")
        except Exception:
            return None


class _WhileGraphLives:
    """Ends the listening when the backward pass comes, or the node that holds it is freed. What autograd
    holds is out of reach of Python's garbage collection, so it does not hold the graph."""

    def __init__(self, graph: LossGraph) -> None:
        self._graph = weakref.ref(graph)

    def __del__(self) -> None:
        self.end(None)

    def end(self, _: torch.Tensor | None) -> None:
        """Ends it."""
        graph = self._graph()
        if graph is not None:
            graph.stop_listening()


class LossGraph:
    """What the guard keeps of the losses that are logged, for a look at them after an alarm.

    A loss is walked from its end back to the model's outputs in the first steps. Later that is done
    only where it holds an operation that is singular somewhere, or where its value is not finite.
    """

    def __init__(self) -> None:
        self.operation: MeasuredOperation | None = None
        """What has made the logged loss of this step not finite, while its graph lived."""
        self.labels: Labels | None = None
        self.constants: list[tuple[float | None, float]] = []
        """The value of a mean cross-entropy, where it need not be the loss that is logged, and what a
        constant answer would have; of this step and the one before, among the first."""
        self.target_range: TargetRange | None = None
        self.is_listening = False
        """Whether nodes that are made now keep their line."""
        self._before: tuple[bool, bool] = (False, True)
        self._lines: dict[str, Line] = {}
        self._calls: list[tuple[int, int]] = []
        self._earlier: list[tuple[int, int]] = []
        """The calls of the step before, whose loss may be logged after it."""
        self._root: Any = None
        self._saved: dict[Any, dict[str, torch.Tensor]] = {}
        """What nodes have kept for the backward pass."""
        self._looked_at: tuple[tuple[int, int] | None, bool] = (None, False)
        """The call whose loss was looked at last, and whether before its backward pass."""
        self._learnt = 0
        self._looks_left = _LEARNT_STEPS
        self._is_singular = False
        self._is_off = False
        """Whether an error in here has ended it."""

    # --- lines ---------------------------------------------------------------------------------

    def listen(self, output: torch.Tensor) -> None:
        """Has the nodes from here on keep their line, as torch's anomaly mode does, until the backward
        pass comes to this output of the model, or its graph is let go of: after an error in the loop, or
        where the call was none of the training."""
        if output.grad_fn is None or self.is_listening or torch.is_anomaly_enabled():
            return
        self._before = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
        self.is_listening = True
        until = _WhileGraphLives(self)
        output.register_hook(until.end)
        output.grad_fn.metadata["tamegrad"] = until
        torch.set_anomaly_enabled(True, False)

    def stop_listening(self) -> None:
        """Puts the anomaly mode back as it was; later, if the loop has its own just now, which would put
        back ours."""
        now = (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled())
        if self.is_listening and now == (True, False):
            self.is_listening = False
            torch.set_anomaly_enabled(*self._before)

    def __del__(self) -> None:
        self.stop_listening()

    # --- a step --------------------------------------------------------------------------------

    def see_call(self, start: int, end: int) -> None:
        """Takes in the nodes that a call of the model has made, from one number to another."""
        self._calls.append((start, end))
        if len(self._calls) > _CALLS_MAX:
            del self._calls[0]

    def is_of_call(self, root: torch.Tensor) -> bool:
        """Whether a loss comes from a call of the model in this step."""

        def is_within(node: Any) -> bool:
            return any(start <= node._sequence_nr() < end for start, end in self._calls)

        return leads_to([root.grad_fn], is_within, _NODES_MAX)

    def see(self, loss: Any, value: float | None, *, begins_backward: bool = False) -> None:
        """Takes in a loss that is logged, or whose backward pass is about to begin, with its value where
        that is known."""
        self.stop_listening()
        try:
            root = getattr(loss, "grad_fn", None)
            if root is not None and self._is_new(value, begins_backward):
                self._see(root, value)
                self._see_constant(root, value, begins_backward)
        except Exception:
            self._turn_off()

    def _is_new(self, value: float | None, begins_backward: bool) -> bool:
        """Whether a loss is not that of a pass which has been looked at, as it was logged or before its
        backward pass, which lets go of its graph."""
        latest = self._calls[-1] if self._calls else None
        looked_at, self._looked_at = self._looked_at, (latest, begins_backward)
        if latest is None or looked_at[0] != latest or looked_at[1] == begins_backward:
            return True
        self._looked_at = (latest, True)
        return begins_backward and _is_broken(value) and self.operation is None

    def _turn_off(self) -> None:
        self.end()
        self._is_off = True

    def _see(self, root: Any, value: float | None) -> None:
        is_known = self._calls or self._earlier
        if self._is_off or not is_known:
            # Without a call that was seen, the graph is that of the model as well.
            return
        self._root = root
        is_broken = _is_broken(value)
        if self._learnt >= _LEARNT_STEPS and not self._is_singular and not is_broken:
            return
        self._saved = {}
        if self._learnt < _LEARNT_STEPS:
            self._learnt += 1
            self._learn(self._walk())
        if is_broken:
            self._see_broken(self._walk())
        elif self._is_singular:
            self._keep_saved()

    def _see_constant(self, root: Any, value: float | None, begins_backward: bool) -> None:
        if self._looks_left == 0:
            return
        self._looks_left -= 1
        constant = _constant_loss_of(root)
        if constant is not None and not (begins_backward and value is None):
            self.constants.append((value if begins_backward else None, constant))

    def _see_broken(self, nodes: list[_Node]) -> None:
        """Looks for what has made the loss not finite, while its graph lives."""
        for node in nodes:
            node.saved = self._saved[node.node] = saved_tensors(node.node)
        self._see_targets(nodes)
        for fault in (_breaks_forward, _was_given_broken):
            if self.operation is None:
                self.operation = self._first(nodes, fault, backward=False)

    def _keep_saved(self) -> None:
        """Keeps the tensors of the singular operations, which the backward pass would let go of. This
        runs in every step of such a loss."""
        stack, met = [self._root], {self._root}
        while stack:
            node = stack.pop()
            if _is_kept(type(node)):
                self._saved[node] = saved_tensors(node)
            for before, _ in node.next_functions:
                if before is not None and before not in met and len(met) < _NODES_MAX:
                    met.add(before)
                    if not self._is_of_model(before):
                        stack.append(before)

    def _learn(self, nodes: list[_Node]) -> None:
        self._is_singular |= any(
            _may_break(node, backward=True) or node.name == "nansum" for node in nodes
        )
        for node in nodes:
            stack = node.node.metadata.get("traceback_")
            line = line_at(place_in_text(stack)) if stack else None
            if line is not None:
                self._lines.setdefault(node.path, line)

    def _see_targets(self, nodes: list[_Node]) -> None:
        for node in nodes:
            if node.name.startswith("nll_loss") and {"self", "target"} <= node.saved.keys():
                given = (node.number_of("ignore_index"), node.number_of("reduction"))
                self.labels = labels_of(node.saved["self"], node.saved["target"], *given)
            elif node.name.startswith("binary_cross_entropy") and "target" in node.saved:
                self.target_range = target_range_of(node.saved["target"])

    def end(self) -> None:
        """Ends the step."""
        self.stop_listening()
        self.operation, self.labels, self.target_range = None, None, None
        self.constants = self.constants[-1:] if self._looks_left else []
        self._root, self._saved = None, {}
        self._calls, self._earlier = [], self._calls
        self._looked_at = (None, False)

    def look_again(self) -> None:
        """Keeps the loss of the coming step whatever it is."""
        self._is_singular = True

    # --- after an alarm ------------------------------------------------------------------------

    def culprit(self, *, is_finite: bool) -> MeasuredOperation | None:
        """The operation that has made the loss not finite, or else the gradient at the model's output:
        by the values that were kept, or as the only one that can do so."""
        try:
            return self._culprit(is_finite=is_finite)
        except Exception:
            self._turn_off()
            return None

    def _culprit(self, *, is_finite: bool) -> MeasuredOperation | None:
        if self.operation is not None or self._root is None:
            return self.operation
        fault = _is_broken_backward if is_finite else _is_broken_forward
        nodes = self._walk()
        for node in nodes:
            node.saved = self._saved.get(node.node, {})
        found = self._first(nodes, fault, backward=is_finite)
        if found is not None or any(node.saved for node in nodes):
            return found
        empty = [node for node in nodes if _is_empty_mean(node)]
        if any(node.name == "nansum" for node in nodes):
            # It hides NaN that was there before, of which nothing is known.
            return self._told(empty[0], backward=False) if empty else None
        singular = [node for node in nodes if _may_break(node, backward=is_finite)]
        candidates = empty or singular
        return self._told(candidates[0], backward=is_finite) if len(candidates) == 1 else None

    def _first(
        self, nodes: list[_Node], fault: Callable[[_Node], bool], *, backward: bool
    ) -> MeasuredOperation | None:
        """The first node at fault, in the order in which the pass comes to them."""
        ordered = sorted(nodes, key=lambda node: node.number, reverse=backward)
        found = next((node for node in ordered if fault(node)), None)
        return None if found is None else self._told(found, backward=backward)

    def _told(self, node: _Node, *, backward: bool) -> MeasuredOperation:
        line = self._lines.get(node.path)
        stack = node.node.metadata.get("traceback_") if line is None else None
        given = [tensor for name, tensor in node.saved.items() if not name.startswith("result")]
        # A result that is finite is 0 where a square root or a norm was given 0.
        given = given or [tensor for tensor in node.saved.values() if is_finite(tensor)]
        operands: list[Operand] = [
            operand_of(tensor, made_by=_maker_of(node, tensor)) for tensor in given
        ]
        result = node.saved.get("result")
        wider_is_finite = None
        if _is_empty_mean(node):
            operands = [operand_of(torch.empty(0))]
        elif not backward and _has_overflowed(node):
            given = _operands_of(node)
            operands, result = [operand_of(tensor) for tensor in given], _computed(node, given)
            wide = _computed(node, [tensor.float() for tensor in given])
            wider_is_finite = node.kind == "cast" or (wide is not None and is_finite(wide))
        return MeasuredOperation(
            kind=node.kind,
            name=node.name,
            backward=backward,
            module=None,
            line=line or (line_at(place_in_text(stack)) if stack else None),
            operands=operands,
            nan=0 if result is None or backward else int(torch.isnan(result).sum()),
            inf=0 if result is None or backward else count_of_inf(result),
            dtype_max=None if result is None else largest_of(result.dtype),
            wider_is_finite=wider_is_finite,
            compiled=node.name.startswith("compiled_function"),
        )

    def _walk(self) -> list[_Node]:
        """The nodes from the loss back to the model, each once, the nearest first."""
        nodes, met, queue = [], set(), [(self._root, "")]
        while queue and len(nodes) < _NODES_MAX:
            node, path = queue.pop(0)
            if node in met or self._is_of_model(node):
                continue
            met.add(node)
            name, kind = name_and_kind(node.name())
            number, dtype = node._sequence_nr(), _dtype_of(node)
            nodes.append(_Node(node, f"{path}/{node.name()}", name, kind, number, dtype))
            queue += [
                (before, f"{nodes[-1].path}:{place}")
                for place, (before, _) in enumerate(node.next_functions)
                if before is not None
            ]
        known = {node.node: node for node in nodes}
        for node in nodes:
            node.given = [known.get(before) for before, _ in node.node.next_functions]
        return nodes

    def _is_of_model(self, node: Any) -> bool:
        number = node._sequence_nr()
        calls = self._calls or self._earlier
        is_within = any(start <= number < end for start, end in calls)
        return is_within or not node.next_functions


@functools.lru_cache(maxsize=1024)
def _is_kept(kind: type) -> bool:
    """Whether the tensors of such a node are kept for a look at them."""
    return name_and_kind(kind.__name__)[1] in _SINGULAR


def _is_broken(value: float | None) -> bool:
    return value is not None and value - value != 0.0


# --- what is not finite where --------------------------------------------------------------------


def _is_empty_mean(node: _Node) -> bool:
    """Whether it is the mean of no elements; the number stays when the backward pass is over."""
    if node.kind != "mean":
        return False
    sizes = node.number_of("self_sym_sizes") or ()
    return node.number_of("self_sym_numel") == 0 or 0 in sizes


def _may_break(node: _Node, *, backward: bool) -> bool:
    """Whether an operation can make what is not finite of what is, as far as its name says."""
    if node.kind == "power":
        exponent = node.number_of("exponent")
        is_whole = isinstance(exponent, (int, float)) and float(exponent).is_integer()
        return not (is_whole and exponent >= 1) and node.name != "square"
    if backward:
        return node.kind in _SINGULAR
    return node.kind in (*_SINGULAR, "exp", "loss")


def _is_broken_forward(node: _Node) -> bool:
    """Whether its result is not finite though what it was given is."""
    if _is_empty_mean(node):
        return True
    saved = node.saved
    given, other, result = saved.get("self"), saved.get("other"), saved.get("result")
    if any(t is not None and not is_finite(t) for t in (given, other)):
        return False
    if node.kind == "division" and other is not None:
        return bool((other == 0).any())
    if node.kind == "log" and given is not None:
        return bool((given <= (-1 if node.name == "log1p" else 0)).any())
    if node.kind == "power" and given is not None and node.name == "pow":
        exponent = node.number_of("exponent")
        return not is_finite(torch.pow(given, exponent))
    if node.kind == "multiply" and given is not None and other is not None:
        return not is_finite(given * other)
    if node.kind == "loss":
        return _is_broken_loss(node)
    # Of these the result is kept.
    if node.kind in ("softmax", "log-softmax"):
        # The logarithm of what a mask hides is -Inf.
        return result is not None and has_nan(result)
    has_result = node.kind in ("sqrt", "std", "norm", "exp", "division")
    return has_result and result is not None and not is_finite(result)


def _breaks_forward(node: _Node) -> bool:
    return _is_broken_forward(node) or _has_overflowed(node)


def _has_overflowed(node: _Node) -> bool:
    """Whether it made a number that is too large for float16 of finite ones, by what follows from the
    tensors that were kept: sums and products keep no result."""
    if node.dtype is not torch.float16:
        return False
    operands = _operands_of(node)
    if not operands or not all(map(is_finite, operands)):
        return False
    result = _computed(node, operands)
    return result is not None and not is_finite(result)


def _operands_of(node: _Node) -> list[torch.Tensor]:
    """What it was given, where all of that is known."""
    names = _OPERANDS.get(node.kind, [()] * len(node.given))
    operands = []
    for place, options in enumerate(names):
        kept = next((node.saved[name] for name in options if name in node.saved), None)
        # The first operand of an `addmm` is none of the two.
        if kept is None and node.kind != "matmul" and place < len(node.given):
            kept = _result_of(node.given[place])
        if kept is None:
            return []
        operands.append(kept)
    return operands


def _result_of(node: _Node | None) -> torch.Tensor | None:
    """Its result, as it was kept, or as it follows from what was."""
    if node is None:
        return None
    kept = node.saved.get("result")
    return _computed(node, _operands_of(node)) if kept is None else kept


def _computed(node: _Node, operands: list[torch.Tensor]) -> torch.Tensor | None:
    """The result of some operations that keep none, in the type of the operands."""
    if len(operands) == 2 and node.kind in _OPERANDS:
        a, b = operands
        if node.kind == "multiply":
            return a * b
        return (
            a @ b if a.dim() and b.dim() and a.shape[-1] == b.shape[max(b.dim() - 2, 0)] else None
        )
    if len(operands) != 1 or node.dtype is None:
        return None
    (given,) = operands
    if node.kind == "cast":
        return given.to(node.dtype)
    if node.kind not in ("sum", "mean") or given.shape != node.number_of("self_sym_sizes"):
        return None
    dims = node.number_of("dim")
    # A node gives a negative dimension without its sign.
    over = None if dims is None else [d - (1 << 64) if d >= 1 << 63 else d for d in dims]
    return given.sum(over) if node.kind == "sum" else given.mean(over)


def _maker_of(node: _Node, operand: torch.Tensor) -> str | None:
    """The kind of the operation that has made an operand of a node, if it is one of the loss's."""
    place = 1 if operand is node.saved.get("other") else 0
    maker = node.given[place] if place < len(node.given) else None
    return None if maker is None else maker.kind


def _constant_loss_of(root: Any) -> float | None:
    """The loss of an answer that is the same for all classes, where a loss is a mean cross-entropy."""
    if not name_and_kind(root.name())[0].startswith("nll_loss") or root._saved_reduction != 1:
        return None
    scores = root._saved_self
    return math.log(scores.shape[1 if scores.dim() > 1 else 0])


def _dtype_of(node: Any) -> torch.dtype | None:
    try:
        return node._input_metadata[0].dtype
    except Exception:
        return None


def _was_given_broken(node: _Node) -> bool:
    """Whether it was given NaN or Inf, by something outside the graph if it is the first."""
    operands = [tensor for name, tensor in node.saved.items() if not name.startswith("result")]
    return not all(map(is_finite, operands))


def _is_broken_loss(node: _Node) -> bool:
    weight, result = node.saved.get("total_weight"), node.saved.get("result0")
    if weight is not None and node.number_of("reduction") == 1:
        return bool((weight == 0).any())
    return result is not None and not is_finite(result)


def _is_broken_backward(node: _Node) -> bool:
    """Whether its derivative is not finite at what it was given."""
    saved = node.saved
    given, other, result = saved.get("self"), saved.get("other"), saved.get("result")
    if node.kind == "sqrt" and result is not None:
        return not is_finite(1 / result if node.name == "sqrt" else result)
    if node.kind == "division":
        inverse = result if other is None else 1 / other
        return inverse is not None and not is_finite(inverse * inverse)
    if given is None:
        return result is not None and not is_finite(result)
    if node.kind == "log":
        return not is_finite(1 / (given + 1 if node.name == "log1p" else given))
    if node.kind == "power" and node.name == "pow":
        exponent = node.number_of("exponent")
        slope = torch.as_tensor(exponent * torch.pow(given, exponent - 1))
        return not is_finite(slope) and not (isinstance(exponent, (int, float)) and not exponent)
    if node.kind == "inverse-trigonometric":
        return node.name != "atan" and bool((given.abs() >= 1).any())
    return has_nan(given) or (result is not None and not is_finite(result))
