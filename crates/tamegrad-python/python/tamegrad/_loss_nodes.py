"""The operations of a loss: whether one is not finite, by the tensors that autograd keeps of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from ._operations import has_nan, is_finite, name_and_kind

SINGULAR = ("log", "sqrt", "std", "division", "power", "inverse-trigonometric")
"""Kinds whose derivative, or result, is not finite somewhere."""
_OPERANDS = {
    "multiply": (("self",), ("other",)),
    "matmul": (("self", "mat1"), ("mat2",)),
}
"""The names under which nodes may keep their operands."""


@dataclass
class LossNode:
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
    given: list[LossNode | None] = field(default_factory=list)
    """What has made what it was given, in the order of its operands; ``None`` outside the loss."""

    def number_of(self, name: str) -> Any:
        """A number that it has kept, which stays when the backward pass is over."""
        try:
            return getattr(self.node, f"_saved_{name}")
        except Exception:
            return None


def is_empty_mean(node: LossNode) -> bool:
    """Whether it is the mean of no elements; the number stays when the backward pass is over."""
    if node.kind == "loss":
        return node.number_of("reduction") == 1 and 0 in shape_of_given(node)
    if node.kind != "mean":
        return False
    sizes = node.number_of("self_sym_sizes") or ()
    return node.number_of("self_sym_numel") == 0 or 0 in sizes


def shape_of_given(node: LossNode) -> tuple[int, ...]:
    """The shape of what it was given first, by what has made that; empty where that is not known."""
    try:
        before, place = node.node.next_functions[0]
        return tuple(before._input_metadata[place].shape)
    except Exception:
        return ()


def may_break(node: LossNode, *, backward: bool) -> bool:
    """Whether an operation can make what is not finite of what is, as far as its name says."""
    if node.kind == "power":
        exponent = node.number_of("exponent")
        is_whole = isinstance(exponent, (int, float)) and float(exponent).is_integer()
        return not (is_whole and exponent >= 1) and node.name != "square"
    if backward:
        return node.kind in SINGULAR
    return node.kind in (*SINGULAR, "exp", "loss")


def is_broken_forward(node: LossNode) -> bool:
    """Whether its result is not finite though what it was given is."""
    if is_empty_mean(node):
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


def breaks_forward(node: LossNode) -> bool:
    """Whether its result is not finite, by what it has kept or by what follows from that."""
    return is_broken_forward(node) or has_overflowed(node)


def has_overflowed(node: LossNode) -> bool:
    """Whether it made a number that is too large for float16 of finite ones, by what follows from the
    tensors that were kept: sums and products keep no result."""
    if node.dtype is not torch.float16:
        return False
    operands = operands_of(node)
    if not operands or not all(map(is_finite, operands)):
        return False
    result = computed(node, operands)
    return result is not None and not is_finite(result)


def operands_of(node: LossNode) -> list[torch.Tensor]:
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


def _result_of(node: LossNode | None) -> torch.Tensor | None:
    """Its result, as it was kept, or as it follows from what was."""
    if node is None:
        return None
    kept = node.saved.get("result")
    return computed(node, operands_of(node)) if kept is None else kept


def computed(node: LossNode, operands: list[torch.Tensor]) -> torch.Tensor | None:
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


def maker_of(node: LossNode, operand: torch.Tensor) -> str | None:
    """The kind of the operation that has made an operand of a node, if it is one of the loss's."""
    place = 1 if operand is node.saved.get("other") else 0
    maker = node.given[place] if place < len(node.given) else None
    return None if maker is None else maker.kind


def constant_loss_of(root: Any) -> float | None:
    """The loss of an answer that is the same for all classes, where a loss is a mean cross-entropy."""
    if not name_and_kind(root.name())[0].startswith("nll_loss") or root._saved_reduction != 1:
        return None
    scores = root._saved_self
    return math.log(scores.shape[1 if scores.dim() > 1 else 0])


def dtype_of(node: Any) -> torch.dtype | None:
    """The type of the result of a node, where autograd tells it."""
    try:
        return node._input_metadata[0].dtype
    except Exception:
        return None


def was_given_broken(node: LossNode) -> bool:
    """Whether it was given NaN or Inf, by something outside the graph if it is the first."""
    operands = [tensor for name, tensor in node.saved.items() if not name.startswith("result")]
    return not all(map(is_finite, operands))


def _is_broken_loss(node: LossNode) -> bool:
    weight, result = node.saved.get("total_weight"), node.saved.get("result0")
    if weight is not None and node.number_of("reduction") == 1:
        return bool((weight == 0).any())
    return result is not None and not is_finite(result)


def is_broken_backward(node: LossNode) -> bool:
    """Whether its derivative is not finite at what it was given."""
    saved = node.saved
    given, other, result = saved.get("self"), saved.get("other"), saved.get("result")
    if node.kind == "sqrt" and result is not None:
        return not is_finite(1 / result if node.name == "sqrt" else result)
    if node.kind == "division":
        if other is None:
            return result is not None and not is_finite(result * result)
        # That of the divisor, in the order in which torch divides; without it, that of the dividend.
        return not is_finite(1 / other if given is None else given / other / other)
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
