"""What a pass has moved is put back, part by part, and told."""

from __future__ import annotations

import collections
import itertools

import numpy
import pytest
import torch
from torch import nn

from tamegrad._put_back import CannotPutBackError, putting_back

TALLY = 0


class Helper:
    """Changes a global variable in a method and in a property."""

    def count(self):
        global TALLY
        TALLY += 1

    @property
    def counted(self):
        self.count()
        return TALLY


class Fixed(dict):
    """Refuses to be emptied."""

    def clear(self):
        raise TypeError("fixed")


class Slotted:
    """Keeps its value where there is no dictionary."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Holder(nn.Module):
    """A module with one of everything that a pass may move."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.slotted, self.helper, self.fixed = Slotted(), Helper(), Fixed(a=1)
        self.objects = numpy.array([[1], None], dtype=object)
        self.ordered = collections.OrderedDict(a=1, b=2)
        self.bytes, self.zero = bytearray(b"ab"), 0.0
        self.linear = nn.Linear(2, 2)
        self.array = numpy.zeros(3)
        self.names = {"a"}
        self.entries = {"first": 1}
        self.items = [1]
        self.cached = torch.zeros(2)
        count = 0

        def counting() -> int:
            nonlocal count
            count += 1
            return count

        self.counting = counting


def state(module) -> tuple:
    return (
        module.slotted.count,
        TALLY,
        dict(module.fixed),
        [str(item) for item in module.objects],
        list(module.ordered),
        bytes(module.bytes),
        str(module.zero),
        module.linear.weight.requires_grad,
        vars(module.cached).copy(),
        type(module).calls,
        module.array.tolist(),
        module.counting.__closure__[0].cell_contents,
        sorted(module.names),
        list(module.entries.items()),
        list(module.items),
        id(module.cached),
        module.cached.tolist(),
        module.cached._version,
        module.linear.weight.tolist(),
        module.linear.weight._version,
    )


MOVES = {
    "module.array += 1.0": "`Holder.array`",
    "module.counting()": "`count`",
    "module.names.add('b')": "`Holder.names`",
    "module.entries['second'] = module.entries.pop('first')": "`Holder.entries.first`",
    "module.items.append(2)": "`Holder.items`",
    "module.array.resize(5, refcheck=False)": "`Holder.array`",
    "module.objects[0].append(2)": "`Holder.objects`",
    "module.ordered.move_to_end('a')": "`Holder.ordered`",
    "module.fixed['a'] = 2": "`Holder.fixed.a`",
    "module.bytes.append(0)": "`Holder.bytes`",
    "module.zero = -0.0": "`Holder.zero`",
    "module.helper.counted": "`TALLY`",
    "module.cached.data = module.cached + 1.0": "`Holder.cached`",
    "module.linear.weight.requires_grad_(False)": ("`Linear._parameters['weight'].requires_grad`"),
    "module.cached.tag = 1": "`Holder.cached.tag`",
    "module.slotted.count += 1": "`Holder.slotted.count`",
    "type(module).calls += 1": "`Holder.calls`",
    "module.cached.add_(1.0)": "a tensor of 2 in place",
    "module.cached = module.cached + 1.0": "`Holder.cached`",
    "with torch.no_grad(): module.linear.weight.mul_(2.0)": "the parameter `linear.weight`",
}
"""What a pass may do, and what is told of it."""


@pytest.mark.parametrize("move", MOVES)
def test_what_moved_is_as_it_was_and_is_named(move):
    module = Holder()
    before = state(module)
    with putting_back([module]) as moved:
        exec(move)
        assert state(module) != before
    assert state(module) == before
    assert moved.what[0] == MOVES[move]


def test_gradients_are_those_that_were_there():
    module = Holder()
    module.linear(torch.ones(1, 2)).sum().backward()
    gradient, added_to = module.linear.weight.grad, module.linear.bias.grad
    with putting_back([module]):
        module.linear.weight.grad = None
        module.linear(torch.ones(1, 2)).sum().backward()
    assert module.linear.weight.grad is gradient
    assert module.linear.bias.grad is added_to and added_to.tolist() == [1.0, 1.0]


def test_a_graph_that_is_kept_can_still_be_gone_back():
    module = Holder()
    weight = torch.ones(2, requires_grad=True)
    loss = (weight * module.cached).sum()
    with putting_back([module]):
        module.cached.add_(1.0)
    loss.backward()
    assert weight.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "held", [iter([1]), itertools.count(), (i for i in [1])], ids=["iterator", "count", "generator"]
)
def test_what_cannot_go_back_is_refused_before_anything_is_run(held):
    module = Holder()
    module.held = held
    with pytest.raises(CannotPutBackError, match="`Holder.held` is an iterator"):
        with putting_back([module]):
            module.items.append(2)
    assert module.items == [1]


def test_each_part_is_put_back_though_another_cannot_be():
    module = Holder()
    module.lazy = nn.LazyLinear(2)
    before = state(module)
    with putting_back([module]):
        module.array += 1.0
        module.cached.add_(1.0)
        with torch.no_grad():
            module.linear.weight.mul_(2.0)
    assert state(module) == before


def test_what_a_hook_on_all_modules_has_moved_is_put_back():
    seen: list[str] = []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, given, output: seen.append(type(module).__name__)
    )
    try:
        with putting_back([module := Holder()]) as moved:
            module.linear(torch.ones(1, 2))
            assert seen == ["Linear"]
    finally:
        handle.remove()
    assert seen == [] and moved.what == ["`seen`"]
