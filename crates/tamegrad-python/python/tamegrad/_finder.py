"""Finds the operation that made the first value that is not finite, in a pass that runs for it."""

from __future__ import annotations

import functools
import sys
from types import FrameType
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from ._calls import storage_id, tensors_of
from ._operations import (
    Labels,
    MeasuredOperation,
    Operand,
    Place,
    TargetRange,
    count_of_inf,
    ctc_labels_of,
    has_nan,
    is_finite,
    labels_of,
    largest_of,
    line_at,
    name_and_kind,
    operand_of,
    place_here,
    target_range_of,
)

_ALLOCATES = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize"}
"""Operations whose result holds whatever lay in the memory."""
_SPREADS = {
    *("full", "full_like", "new_full", "fill", "masked_fill", "index_fill", "scalar_tensor"),
    *("constant_pad_nd", "scatter", "masked_scatter", "where"),
}
"""Operations that write a value which somebody has chosen to many places."""
_OVERWRITES = {"copy", "fill", "zero", "normal", "uniform", "random", "bernoulli", "exponential"}
"""Operations in place that do not look at what was there."""
_SHORT = (torch.float16, torch.bfloat16)
_OPERANDS_MAX = 8
"""Operands of one operation that are told."""

_Source = MeasuredOperation | None
"""The operation that made a value; ``None`` for one that was given or chosen."""


class Finder(TorchDispatchMode):
    """Sees every operation of a forward pass and of the backward pass after it.

    Where an output is not finite, it knows by the memory of the tensors where that has come from. An
    Inf that was put there, as in a mask, counts only once it becomes NaN; one that arithmetic made
    from finite values is not. In the backward pass the culprit is the first node of the graph that
    gives on what is not finite.

    An error in here makes it blind and never stops the pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operation: MeasuredOperation | None = None
        self.labels: Labels | None = None
        self.target_range: TargetRange | None = None
        self.outputs_are_finite = False
        """Whether all outputs of the forward pass are."""
        self.error: Exception | None = None
        """What has made it blind."""
        self._base: FrameType | None = sys._getframe(1)
        self._sources: dict[int, tuple[StorageWeakRef, _Source]] = {}
        self._makers: dict[int, tuple[StorageWeakRef, str]] = {}
        self._first_nan: _Source = None
        self._modules: list[tuple[str, int]] = []
        """The modules whose calls are open, each with the number of the next node at its beginning."""
        self._spans: list[tuple[int, int, str]] = []
        """The nodes from one number to another, and the module that made them; the innermost first."""
        self._places: dict[int, Place | None] = {}
        """The user's line of a node."""
        self._looks_back = False
        self._met: set[int] = set()
        self._done: set[int] = set()
        self._within: dict[int, MeasuredOperation] = {}
        """The first operation of a node's backward pass whose result is not finite."""

    # --- what the pass tells -------------------------------------------------------------------

    def enter(self, module: str) -> None:
        """Before the call of a module."""
        self._modules.append((module, next_node()))

    def leave(self) -> None:
        """After it."""
        if self._modules:
            module, start = self._modules.pop()
            self._spans.append((start, next_node(), module))

    def end_forward(self, outputs: Any, gradients: Any = ()) -> None:
        """After the forward pass: takes the operation by which the outputs are not finite; if there is
        none, and the gradients that will come to them are finite, looks at the backward pass."""
        self._safely(self._end_forward, outputs, gradients)

    def _end_forward(self, outputs: Any, gradients: Any) -> None:
        self.outputs_are_finite = all(is_finite(tensor) for tensor in tensors_of(outputs))
        for is_bad in (has_nan, count_of_inf):
            sources = [self._source_of(storage_id(t)) for t in tensors_of(outputs) if is_bad(t)]
            self.operation = next((source for source in sources if source is not None), None)
            if self.operation is not None or (sources and is_bad is has_nan):
                return
        self._looks_back = all(is_finite(gradient) for gradient in gradients)

    def give_up(self) -> None:
        """Where the pass has raised: takes what has made the first NaN."""
        self.operation = self.operation or self._first_nan

    # --- operations ----------------------------------------------------------------------------

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if self.error is not None:
            return function(*args, **kwargs)
        given = self._safely(self._given, function, args, kwargs)
        output = function(*args, **kwargs)
        if given is not None:
            self._safely(self._see, function, args, kwargs, given, output)
        return output

    def _safely(self, call: Any, *given: Any) -> Any:
        """Without seeing what the call itself does, and blind after an error."""
        if self.error is not None:
            return None
        try:
            with _disable_current_modes(), torch.no_grad():
                return call(*given)
        except Exception as error:
            self.error, self.operation = error, None
            return None

    def _given(self, function: Any, args: tuple, kwargs: dict[str, Any]) -> list[_Given]:
        """The operands: tensors, and the numbers that stand in the place of tensors. What is about to
        be written to is copied."""
        schema = function._schema
        name = _name_of(function)[0]
        named = list(zip(schema.arguments, args, strict=False))
        named += [(a, kwargs[a.name]) for a in schema.arguments if a.name in kwargs]
        given = []
        for argument, value in named:
            is_written = argument.alias_info is not None and argument.alias_info.is_write
            if is_written and (argument.is_out or name in _OVERWRITES):
                continue
            if isinstance(value, (float, int)) and not isinstance(value, bool):
                if str(argument.type) in ("Tensor", "number") and argument.name not in _FACTORS:
                    given.append(_Given(value, None))
                continue
            for tensor in tree_leaves(value):
                if isinstance(tensor, torch.Tensor) and not tensor.is_nested:
                    key = storage_id(tensor)
                    copy = is_written and tensor.layout == torch.strided
                    given.append(_Given(tensor.detach().clone() if copy else tensor, key))
        return given

    def _see(
        self, function: Any, args: tuple, kwargs: dict[str, Any], given: list[_Given], output: Any
    ) -> None:
        name, kind = _name_of(function)
        node = torch._C._current_autograd_node()
        number = None if node is None else node._sequence_nr()
        if number is None:
            self._places.setdefault(next_node() - 1, place_here(self._base))
            self._see_targets(name, args)
        elif self._looks_back and number not in self._met:
            self._met.add(number)
            node.register_hook(lambda into, _: self._safely(self._leave_node, node, into))
        results = tensors_of(output)
        broken = [] if name in _ALLOCATES else [t for t in results if not is_finite(t)]
        if broken and (number is None or not self._looks_back):
            source = self._source(function, args, kwargs, given, broken)
            for tensor in broken:
                self._keep_source(tensor, source)
            if self._first_nan is None and any(map(has_nan, broken)):
                self._first_nan = source
        elif broken and number not in self._within and not any(_is_broken(g.value) for g in given):
            found = self._described(function, args, kwargs, given, broken)
            self._within[number] = found
            if number in self._done and self.operation is None:
                # The node is over: its gradient is added to that of another way.
                self.operation = found
        keys = {one.key for one in given}
        for tensor in results:
            key = storage_id(tensor)
            if key is not None and (key not in keys or function._schema.is_mutable):
                self._makers[key] = (StorageWeakRef(tensor.untyped_storage()), kind)

    def _see_targets(self, name: str, args: tuple) -> None:
        """Takes in the targets of a loss, the first that comes."""
        if name.startswith("nll_loss") and self.labels is None:
            self.labels = labels_of(args[0], args[1], args[4], args[3])
        elif name.startswith("ctc_loss") and self.labels is None:
            # One that has its infinities made 0 is finite whatever the targets are.
            if not any(is_zeroed is True for is_zeroed in args[5:]):
                self.labels = ctc_labels_of(args[0].shape[-1], *args[1:4])
        elif name.startswith("binary_cross_entropy") and self.target_range is None:
            self.target_range = target_range_of(args[1])

    def _source(
        self, function: Any, args: Any, kwargs: Any, given: list[_Given], broken: list[torch.Tensor]
    ) -> _Source:
        """The operation by which these results of one are not finite."""
        name, kind = _name_of(function)
        nans = [one for one in given if has_nan(one.value)]
        infinite = [one for one in given if count_of_inf(one.value)]
        if any(map(has_nan, broken)):
            if nans:
                return self._known(nans)
            described = self._described(function, args, kwargs, given, broken)
            is_masked = kind in ("softmax", "log-softmax") and _is_masked(described.operands)
            return described if is_masked else self._known(infinite) or described
        if nans or infinite:
            known = self._known([*infinite, *nans])
            if known is not None or name in _SPREADS or not _is_more_infinite(given, broken):
                return known
        return self._described(function, args, kwargs, given, broken)

    def _known(self, given: list[_Given]) -> _Source:
        sources = [self._source_of(one.key) for one in given]
        return next((source for source in sources if source is not None), None)

    def _source_of(self, key: int | None) -> _Source:
        return None if key is None or key not in self._sources else self._sources[key][1]

    def _keep_source(self, tensor: torch.Tensor, source: _Source) -> None:
        key = storage_id(tensor)
        if key is not None:
            # The reference keeps the address from being used again.
            self._sources[key] = (StorageWeakRef(tensor.untyped_storage()), source)

    def _described(
        self, function: Any, args: Any, kwargs: Any, given: list[_Given], broken: list[torch.Tensor]
    ) -> MeasuredOperation:
        name, kind = _name_of(function)
        return MeasuredOperation(
            kind=kind,
            name=name,
            backward=torch._C._current_autograd_node() is not None,
            module=self._modules[-1][0] if self._modules else None,
            line=line_at(place_here(self._base)),
            operands=self._operands(function, args, kind, given),
            wider_is_finite=_is_finite_when_wider(function, args, kwargs, given, broken),
            compiled=False,
            **_result(broken),
        )

    def _operands(
        self, function: Any, args: tuple, kind: str, given: list[_Given]
    ) -> list[Operand]:
        dims = [
            a for s, a in zip(function._schema.arguments, args, strict=False) if s.name == "dim"
        ]
        dim = dims[0] if dims and isinstance(dims[0], int) else -1
        shown = [
            one
            for one in given
            if not _is_bool(one.value) or (kind == "attention" and one.value.dim() > 1)
        ]
        return [
            operand_of(one.value, dim=_within(dim, one.value), made_by=self._maker_of(one.key))
            for one in shown[:_OPERANDS_MAX]
        ]

    def _maker_of(self, key: int | None) -> str | None:
        return None if key is None or key not in self._makers else self._makers[key][1]

    # --- nodes ---------------------------------------------------------------------------------

    def _leave_node(self, node: Any, gradients: tuple) -> None:
        """After the backward pass of a node, which gives these gradients on."""
        number = node._sequence_nr()
        self._done.add(number)
        broken = [g for g in gradients if isinstance(g, torch.Tensor) and not is_finite(g)]
        if self._looks_back and self.operation is None and broken:
            self.operation = self._of_node(node, number, broken)

    def _of_node(self, node: Any, number: int, broken: list[torch.Tensor]) -> MeasuredOperation:
        within = self._within.get(number)
        name, kind = name_and_kind(node.name())
        line = line_at(self._places.get(number))
        is_custom = isinstance(node, torch.autograd.function.BackwardCFunction)
        is_compiled = type(node).__name__.startswith("CompiledFunction")
        if is_custom:
            name, kind = type(node).__name__.removesuffix("Backward"), "custom"
            line = (within and within.line) or line
        saved = [] if is_compiled else saved_tensors(node).values()
        operands = [operand_of(t, made_by=self._maker_of(storage_id(t))) for t in saved]
        return MeasuredOperation(
            kind="other" if is_compiled else kind,
            name=name,
            backward=True,
            module=self._module_of(number),
            line=line,
            operands=operands[:_OPERANDS_MAX] or (within.operands if within else []),
            wider_is_finite=within.wider_is_finite if within else None,
            compiled=is_compiled,
            **_result(broken),
        )

    def _module_of(self, number: int) -> str | None:
        return next((name for start, end, name in self._spans if start <= number < end), None)


class _Given:
    """One operand, and the address of its memory."""

    __slots__ = ("value", "key")

    def __init__(self, value: Any, key: int | None) -> None:
        self.value, self.key = value, key


_FACTORS = ("alpha", "beta", "dim", "correction", "reduction", "ignore_index", "p", "ord")
"""Numbers that say how and not what."""


def saved_tensors(node: Any) -> dict[str, torch.Tensor]:
    """The tensors that a node of the graph has kept for its backward pass, as far as they are there and
    hold numbers: inputs first, and results last."""
    names = _saved_names(type(node))
    found = {name.removeprefix("_saved_"): _saved(node, name) for name in names}
    if not names and hasattr(node, "saved_tensors"):
        held = _saved(node, "saved_tensors") or ()
        found = {str(place): tensor for place, tensor in enumerate(held)}
    return {
        name: tensor
        for name, tensor in found.items()
        if isinstance(tensor, torch.Tensor) and not tensor.is_nested and not _is_bool(tensor)
    }


@functools.lru_cache(maxsize=1024)
def _saved_names(kind: type) -> list[str]:
    return sorted(
        (name for name in dir(kind) if name.startswith("_saved_")),
        key=lambda name: (name.startswith("_saved_result"), name != "_saved_self", name),
    )


def _saved(node: Any, name: str) -> Any:
    try:
        return getattr(node, name)
    except Exception:
        # It was let go of, or belongs to a checkpoint.
        return None


def next_node() -> int:
    """The number that the next node of the graph gets in this thread."""
    return torch.autograd._get_sequence_nr()


def _name_of(function: Any) -> tuple[str, str]:
    name = function._schema.name.split("::")[-1]
    plain, kind = name_and_kind(name)
    if "_backward" in name:
        # It is of the kind of what it belongs to.
        kind = name_and_kind(name.split("_backward")[0])[1]
    return plain.removesuffix("_forward"), kind


def _is_bool(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype == torch.bool


def _is_broken(value: Any) -> bool:
    return has_nan(value) or count_of_inf(value) > 0


def _is_masked(operands: list[Operand]) -> bool:
    return any(operand.masked_rows and not operand.pos_inf for operand in operands)


def _is_more_infinite(given: list[_Given], broken: list[torch.Tensor]) -> bool:
    """Whether an operation, element by element, has made more Inf than it was given."""
    tensors = [one.value for one in given if isinstance(one.value, torch.Tensor)]
    known = sum(count_of_inf(one.value) for one in given)
    is_elementwise = bool(tensors) and all(t.shape == broken[0].shape for t in tensors)
    return is_elementwise and count_of_inf(broken[0]) > known


def _within(dim: int, value: Any) -> int:
    dims = value.dim() if isinstance(value, torch.Tensor) else 0
    return dim if -dims <= dim < dims else -1


def _result(broken: list[torch.Tensor]) -> dict[str, Any]:
    return {
        "nan": sum(operand_of(tensor).nan for tensor in broken),
        "inf": sum(count_of_inf(tensor) for tensor in broken),
        "dtype_max": largest_of(broken[0].dtype),
    }


def _is_finite_when_wider(
    function: Any, args: Any, kwargs: Any, given: list[_Given], broken: list[torch.Tensor]
) -> bool | None:
    """Whether the same operation in f32 gives finite values; ``None`` where that is not known."""
    is_random = torch.Tag.nondeterministic_seeded in function.tags
    if is_random or not any(tensor.dtype in _SHORT for tensor in broken):
        return None
    if _name_of(function)[1] == "cast":
        return not any(_is_broken(one.value) for one in given)
    if function._schema.is_mutable:
        # What was written to is gone; its copy is the first operand.
        args = (given[0].value, *args[1:]) if given else args
    try:
        output = function(*tree_map(_wider, args), **tree_map(_wider, kwargs))
    except Exception:
        return None
    return all(is_finite(tensor) for tensor in tensors_of(output))


def _wider(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _SHORT:
        return value.detach().float()
    return torch.float32 if isinstance(value, torch.dtype) and value in _SHORT else value
