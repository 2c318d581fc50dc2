"""The loss outside the model: which of its operations is not finite, by the graph that autograd keeps."""

from __future__ import annotations

import collections
import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch

from ._calls import leads_to
from ._finder import saved_tensors
from ._loss_nodes import (
    SINGULAR,
    LossNode,
    breaks_forward,
    computed,
    constant_loss_of,
    dtype_of,
    has_overflowed,
    is_broken_backward,
    is_broken_forward,
    is_empty_mean,
    maker_of,
    may_break,
    operands_of,
    shape_of_given,
    was_given_broken,
)
from ._operations import (
    Labels,
    Line,
    MeasuredOperation,
    Operand,
    TargetRange,
    count_of_inf,
    ctc_labels_of,
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
_USES_MAX = 20_000
"""Nodes that are looked at for the parameters that are used more than once."""
_COPIES = ("TBackward0", "ToCopyBackward0")
"""The nodes of a matrix that is given to an operation transposed, or in another type."""
_LEARNT_STEPS = 3
"""Steps after which the operations of a loss are taken as known."""


class _WhileGraphLives:
    """Ends the listening when the backward pass comes, or the node that holds it is freed. What autograd
    holds is out of reach of Python's garbage collection, so it does not hold the graph."""

    def __init__(self, graph: LossGraph) -> None:
        self._graph = weakref.ref(graph)

    def __del__(self) -> None:
        self.end(None)

    def end(self, gradient: torch.Tensor | None) -> None:
        """Ends it, but for a gradient that is to be part of the loss: its own graph is being made."""
        graph = self._graph()
        is_part = gradient is not None and torch.is_grad_enabled()
        if graph is not None and not is_part:
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
        if not self.is_listening:
            return
        if (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()) == (True, False):
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
        constant = constant_loss_of(root)
        if constant is not None and not (begins_backward and value is None):
            self.constants.append((value if begins_backward else None, constant))

    def _see_broken(self, nodes: list[LossNode]) -> None:
        """Looks for what has made the loss not finite, while its graph lives."""
        for node in nodes:
            node.saved = self._saved[node.node] = saved_tensors(node.node)
        self._see_targets(nodes)
        for fault in (breaks_forward, was_given_broken):
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

    def _learn(self, nodes: list[LossNode]) -> None:
        self._is_singular |= any(
            may_break(node, backward=True) or node.name == "nansum" for node in nodes
        )
        for node in nodes:
            stack = node.node.metadata.get("traceback_")
            line = line_at(place_in_text(stack)) if stack else None
            if line is not None:
                self._lines.setdefault(node.path, line)

    def _see_targets(self, nodes: list[LossNode]) -> None:
        for node in nodes:
            # Of several losses one with sequences that do not fit is the one to tell of.
            if self.labels is None or not self.labels.too_long:
                self.labels = _labels_in(node) or self.labels
            if node.name.startswith("binary_cross_entropy") and "target" in node.saved:
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

    def culprit(self, *, is_finite: bool, by_values: bool = False) -> MeasuredOperation | None:
        """The operation that has made the loss not finite, or else a gradient: by the values that were kept,
        or, unless only these shall count, as the only one that can do so."""
        try:
            return self._culprit(is_finite=is_finite, by_values=by_values)
        except Exception:
            self._turn_off()
            return None

    def used_repeatedly(self) -> set[int]:
        """The ids of the parameters that several operations of the pass were given, in front of the loss."""
        counts: collections.Counter[int] = collections.Counter()
        queue, met = collections.deque([] if self._root is None else [self._root]), set()
        while queue and len(met) < _USES_MAX:
            node = queue.popleft()
            for before, _ in node.next_functions:
                variable = getattr(before, "variable", None)
                if variable is not None:
                    counts[id(variable)] += 1
                # The same transposed or cast copy may be given to several.
                elif before is not None and (before not in met or type(before).__name__ in _COPIES):
                    met.add(before)
                    queue.append(before)
        return {known for known, count in counts.items() if count > 1}

    def _culprit(self, *, is_finite: bool, by_values: bool) -> MeasuredOperation | None:
        if self.operation is not None or self._root is None:
            return self.operation
        fault = is_broken_backward if is_finite else is_broken_forward
        nodes = self._walk()
        for node in nodes:
            node.saved = self._saved.get(node.node, {})
        if not is_finite:
            self._see_targets(nodes)
        found = self._first(nodes, fault, backward=is_finite)
        if found is not None or by_values or any(node.saved for node in nodes):
            return found
        empty = [node for node in nodes if is_empty_mean(node)]
        if any(node.name == "nansum" for node in nodes):
            # It hides NaN that was there before, of which nothing is known.
            return self._told(empty[0], backward=False) if empty else None
        singular = [node for node in nodes if may_break(node, backward=is_finite)]
        candidates = empty or singular
        return self._told(candidates[0], backward=is_finite) if len(candidates) == 1 else None

    def _first(
        self, nodes: list[LossNode], fault: Callable[[LossNode], bool], *, backward: bool
    ) -> MeasuredOperation | None:
        """The first node at fault, in the order in which the pass comes to them."""
        ordered = sorted(nodes, key=lambda node: node.number, reverse=backward)
        found = next((node for node in ordered if fault(node)), None)
        return None if found is None else self._told(found, backward=backward)

    def _told(self, node: LossNode, *, backward: bool) -> MeasuredOperation:
        line = self._lines.get(node.path)
        stack = node.node.metadata.get("traceback_") if line is None else None
        given = [tensor for name, tensor in node.saved.items() if not name.startswith("result")]
        # A result that is finite is 0 where a square root or a norm was given 0; those of a loss are the
        # losses of its rows.
        is_loss = node.kind == "loss"
        given = given or [t for t in node.saved.values() if is_loss or is_finite(t)]
        operands: list[Operand] = [
            operand_of(tensor, made_by=maker_of(node, tensor)) for tensor in given
        ]
        result = node.saved.get("result")
        wider_is_finite = None
        if is_empty_mean(node):
            operands = [operand_of(torch.empty(0))]
        elif not backward and has_overflowed(node):
            given = operands_of(node)
            operands, result = [operand_of(tensor) for tensor in given], computed(node, given)
            wide = computed(node, [tensor.float() for tensor in given])
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

    def _walk(self) -> list[LossNode]:
        """The nodes from the loss back to the model, each once, the nearest first."""
        nodes, met, queue = [], set(), [(self._root, "")]
        while queue and len(nodes) < _NODES_MAX:
            node, path = queue.pop(0)
            if node in met or self._is_of_model(node):
                continue
            met.add(node)
            name, kind = name_and_kind(node.name())
            number, dtype = node._sequence_nr(), dtype_of(node)
            nodes.append(LossNode(node, f"{path}/{node.name()}", name, kind, number, dtype))
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
    return name_and_kind(kind.__name__)[1] in SINGULAR


def _labels_in(node: LossNode) -> Labels | None:
    """The targets of a node that is a loss of labels. Of a ``ctc_loss`` only the lengths stay when the
    backward pass is over; one that has its infinities made 0 is finite whatever the targets are."""
    if node.name.startswith("nll_loss") and {"self", "target"} <= node.saved.keys():
        given = (node.number_of("ignore_index"), node.number_of("reduction"))
        return labels_of(node.saved["self"], node.saved["target"], *given)
    if "ctc_loss" not in node.name or node.number_of("zero_infinity"):
        return None
    lengths = [node.number_of("input_lengths"), node.number_of("target_lengths")]
    shape = shape_of_given(node)
    if None in lengths or not shape:
        return None
    targets = node.saved.get("targets", torch.empty(0, dtype=torch.long))
    return ctc_labels_of(shape[-1], targets, *lengths)


def _is_broken(value: float | None) -> bool:
    return value is not None and value - value != 0.0
