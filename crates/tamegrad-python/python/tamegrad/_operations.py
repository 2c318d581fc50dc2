"""Operations of torch: what kind they are, what they were given, and the user's line that called them."""

from __future__ import annotations

import functools
import linecache
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from ._gradients import values_of

Place = tuple[str, int, str]
"""A file, a line of it, and the function around it."""

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(__file__) + os.sep
_STANDARD = os.path.dirname(os.__file__) + os.sep
_FRAME = re.compile(r'\s*File "(.*)", line (\d+), in (.*)')

_KINDS = {
    "log": "log log2 log10 log1p logit special_logit xlogy special_xlog1py",
    "sqrt": "sqrt rsqrt",
    "norm": "norm linalg_vector_norm hypot dist renorm cdist cdist_forward euclidean_dist pdist_forward pdist",
    "std": "std var std_mean var_mean",
    "division": "div divide true_divide reciprocal remainder fmod addcdiv",
    "power": "pow square float_power prod cumprod",
    "exp": "exp exp2 expm1 sinh cosh logsumexp logaddexp logcumsumexp softplus",
    "softmax": "softmax safe_softmax masked_softmax",
    "log-softmax": "log_softmax",
    "mean": "mean",
    "sum": "sum nansum cumsum",
    "where": "where",
    "mask": "masked_fill masked_scatter masked_select index_fill tril triu",
    "matmul": "mm bmm addmm baddbmm addbmm mv addmv dot vdot addr linear bilinear matmul",
    "convolution": "convolution* conv* mkldnn_convolution* cudnn_convolution* slow_conv* thnn_conv*",
    "attention": "scaled_dot_product* flash_attention* efficient_attention* cudnn_attention*",
    "cast": "to_copy copy to",
    "multiply": "mul multiply addcmul",
    "add": "add sub rsub lerp",
    "loss": "nll_loss* cross_entropy* binary_cross_entropy* ctc_loss* cudnn_ctc_loss* mse_loss "
    "smooth_l1_loss huber_loss kl_div soft_margin_loss multi_margin_loss multilabel_margin_loss",
    "normalisation": "native_layer_norm* native_batch_norm* native_group_norm* cudnn_batch_norm* "
    "batch_norm* layer_norm* fused_rms_norm* rms_norm*",
    "inverse-trigonometric": "acos asin atan atan2 acosh asinh atanh",
}
"""The kinds of operations, each with the names that torch gives them; a star stands for any ending."""


@dataclass(frozen=True)
class Line:
    """A line of source."""

    file: str
    line: int
    function: str
    code: str


@dataclass(frozen=True)
class Operand:
    """What an operation was given: counts of special values, and the range of the others."""

    dtype: str
    len: int
    zeros: int
    negatives: int
    nan: int
    pos_inf: int
    neg_inf: int
    smallest: float | None
    """The least magnitude above 0 of the finite elements."""
    largest: float | None
    """The largest magnitude of the finite elements."""
    masked_rows: int
    """Rows along the softmax's dimension, or else the last, that are -inf in every element."""
    made_by: str | None
    """Kind of the operation that made this tensor in this pass."""


@dataclass(frozen=True)
class MeasuredOperation:
    """An operation with what it was given and made: that of the first value that is not finite."""

    kind: str
    name: str
    backward: bool
    module: str | None
    """Dotted path of the innermost module around it; empty for the model itself, ``None`` outside."""
    line: Line | None
    operands: list[Operand]
    nan: int
    inf: int
    """NaN and infinite elements of the result."""
    dtype_max: float | None
    """The largest finite number of the result's type."""
    wider_is_finite: bool | None
    """For a 16-bit result, whether the same operation on f32 operands gives only finite values."""
    compiled: bool


@dataclass(frozen=True)
class Labels:
    """The integer targets of a loss."""

    len: int
    ignored: int
    min: int
    max: int
    """Range of those that are not ignored; 0 and 0 without any."""
    classes: int
    reduction: str
    too_long: int | None = None
    """For the CTC loss, the rows whose target does not fit into the input."""


@dataclass(frozen=True)
class TargetRange:
    """The range of the targets of a binary cross-entropy, which takes probabilities."""

    min: float
    max: float


# --- kinds -------------------------------------------------------------------------------------


def _table() -> tuple[dict[str, tuple[str, str]], list[tuple[str, str]]]:
    exact, prefixes = {}, []
    for kind, names in _KINDS.items():
        for name in names.split():
            if name.endswith("*"):
                prefixes.append((_squashed(name[:-1]), kind))
            else:
                exact[_squashed(name)] = (name, kind)
    return exact, prefixes


def _squashed(name: str) -> str:
    """A name without what torch writes in several ways: ``nll_loss2d`` is ``NllLoss2D`` as well."""
    return name.replace("_", "").lower()


_EXACT, _PREFIXES = _table()


@functools.lru_cache(maxsize=4096)
def name_and_kind(name: str) -> tuple[str, str]:
    """The plain name and the kind of an operation, by its name in torch (``_softmax``) or that of its
    node in the graph (``SoftmaxBackward0``)."""
    name = re.sub(r"Backward\d*$", "", name)
    if name[:1].isupper():
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    name = name.strip("_")
    squashed = _squashed(name)
    known = _EXACT.get(squashed)
    if known is not None:
        return known
    kinds = [kind for prefix, kind in _PREFIXES if squashed.startswith(prefix)]
    return name, kinds[0] if kinds else "other"


# --- values ------------------------------------------------------------------------------------


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all elements are finite."""
    return bool(torch.isfinite(values_of(tensor.detach())[0]).all())


def has_nan(value: Any) -> bool:
    """Whether a tensor or number is or holds NaN."""
    if not isinstance(value, torch.Tensor):
        return value != value
    return bool(torch.isnan(values_of(value.detach())[0]).any())


def count_of_inf(value: Any) -> int:
    """How many elements of a tensor, or of a number, are infinite."""
    if not isinstance(value, torch.Tensor):
        return int(value in (float("inf"), float("-inf")))
    return int(torch.isinf(values_of(value.detach())[0]).sum())


@torch.no_grad()
def operand_of(value: Any, *, dim: int = -1, made_by: str | None = None) -> Operand:
    """What there is to say of a tensor, or of a number that stands in the place of one."""
    tensor = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    if tensor.dtype == torch.bool:
        # A mask of what may be seen: nothing is left of a row of False.
        tensor_values, missing = torch.zeros(tensor.shape).masked_fill(~tensor, -torch.inf), 0
    elif tensor.is_floating_point() or tensor.is_complex():
        tensor_values, missing = values_of(tensor.detach())
    else:
        tensor_values, missing = tensor.detach().double(), 0
    size = tensor_values.abs()
    finite = torch.isfinite(size)
    counted = size[finite & (size > 0)]
    some = bool(counted.numel())
    infinite = tensor_values == -torch.inf
    is_row = tensor_values.shape == tensor.shape and tensor.dim() and tensor.shape[dim]
    return Operand(
        dtype=str(tensor.dtype).removeprefix("torch."),
        len=tensor_values.numel() + missing,
        zeros=int((tensor_values == 0).sum()) + missing,
        negatives=int((tensor_values < 0).sum()),
        nan=int(torch.isnan(tensor_values).sum()),
        pos_inf=int((tensor_values == torch.inf).sum()),
        neg_inf=int(infinite.sum()),
        smallest=float(counted.min()) if some else None,
        largest=float(counted.max()) if some else (0.0 if bool(finite.any()) else None),
        masked_rows=int(infinite.all(dim).sum()) if is_row else 0,
        made_by=made_by,
    )


def largest_of(dtype: torch.dtype) -> float | None:
    """The largest finite number of a type."""
    return torch.finfo(dtype).max if dtype.is_floating_point or dtype.is_complex else None


# --- targets -----------------------------------------------------------------------------------


def labels_of(
    scores: torch.Tensor, targets: torch.Tensor, ignore_index: int, reduction: int
) -> Labels:
    """What there is to say of the targets of an ``nll_loss``."""
    if ignore_index >= 1 << 63:
        # A node gives it without its sign.
        ignore_index -= 1 << 64
    kept = targets[targets != ignore_index]
    some = bool(kept.numel())
    return Labels(
        len=targets.numel(),
        ignored=targets.numel() - kept.numel(),
        min=int(kept.min()) if some else 0,
        max=int(kept.max()) if some else 0,
        classes=scores.shape[1 if scores.dim() > 1 else 0],
        reduction=("none", "mean", "sum")[reduction],
    )


def ctc_labels_of(
    classes: int, targets: torch.Tensor, input_lengths: Any, target_lengths: Any
) -> Labels:
    """What there is to say of the targets of a ``ctc_loss``: one that repeats a class needs a blank
    between the two. Without targets only their lengths count."""
    given, wanted = [int(n) for n in input_lengths], [int(n) for n in target_lengths]
    too_long, start = 0, 0
    for row, length in enumerate(wanted):
        target = targets[row, :length] if targets.dim() > 1 else targets[start : start + length]
        start += length
        repeats = int((target[1:] == target[:-1]).sum())
        too_long += length + repeats > given[row]
    some = bool(targets.numel())
    return Labels(
        len=len(wanted),
        ignored=0,
        min=int(targets.min()) if some else 0,
        max=int(targets.max()) if some else 0,
        classes=classes,
        reduction="none",
        too_long=too_long,
    )


def target_range_of(targets: torch.Tensor) -> TargetRange | None:
    """The range of the targets of a binary cross-entropy."""
    if not targets.numel():
        return None
    return TargetRange(float(targets.min()), float(targets.max()))


# --- lines -------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _owner_of(file: str) -> str:
    """Whose a file is: ``user``, ``library``, or nobody's that is told."""
    if file.startswith((_TORCH, _OURS)) or file.startswith(
        ("<frozen", "<eval_with_key", "<string")
    ):
        return ""
    parts = file.replace("\\", "/").split("/")
    is_installed = "site-packages" in parts or "dist-packages" in parts
    return "library" if is_installed or file.startswith(_STANDARD) else "user"


def place_in(frame: FrameType | None, base: FrameType | None = None) -> Place | None:
    """The innermost place of the user's among a frame and those that called it, up to ``base``; where
    there is none, the innermost of a library other than torch."""
    of_library = None
    while frame is not None and frame is not base:
        owner = _owner_of(frame.f_code.co_filename)
        if owner == "user" or (owner and of_library is None):
            place = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
            if owner == "user":
                return place
            of_library = place
        frame = frame.f_back
    return of_library


def place_here(base: FrameType | None) -> Place | None:
    """The place that is running, as ``place_in`` has it."""
    return place_in(sys._getframe(1), base)


def place_in_text(entries: Iterable[str]) -> Place | None:
    """The same, of a stack in the words of ``traceback.format_stack``, the outermost first."""
    of_library = None
    for entry in reversed(list(entries)):
        found = _FRAME.match(entry)
        owner = _owner_of(found[1]) if found else ""
        if found and owner:
            place = (found[1], int(found[2]), found[3].strip())
            if owner == "user":
                return place
            of_library = of_library or place
    return of_library


def line_at(place: Place | None) -> Line | None:
    """The line at a place."""
    if place is None:
        return None
    file, number, function = place
    return Line(_shown(file), number, function, linecache.getline(file, number).strip())


def _shown(file: str) -> str:
    """A path as people would write it: from the working directory, if it lies in there."""
    try:
        below = os.path.join(os.getcwd(), "")
    except OSError:
        # The directory is gone.
        return file
    return file.removeprefix(below)
