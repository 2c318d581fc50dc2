"""A watched run is the bare run to the bit, whatever a forward pass does besides its output."""

from __future__ import annotations

import math
import os
import random
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from conftest import learn, state_bits, watched
from torch import nn

import tamegrad

FAULT = 120
"""The step of the large batch; the baselines are settled by then."""
NAN = 20
"""The step of a loss that is NaN, which needs no baselines."""

CHANCE = torch.Generator()
CALLS = 0
SEEN: list[float] = []


def begin_globals() -> None:
    """Makes the globals of this file what they are before a run."""
    global CALLS
    CALLS = 0
    CHANCE.manual_seed(7)
    SEEN.clear()


class Net(nn.Module):
    """Two layers; what a kind of module does besides is done between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)
        self.auxiliary: list[torch.Tensor] = []
        self.begin()

    def begin(self) -> None:
        """Makes what the kind needs."""

    def between(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return h

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.between(x, torch.relu(self.a(x))))


class Dropout(Net):
    """Draws from torch's own random state."""

    def between(self, x, h):
        return nn.functional.dropout(h, 0.3)


class Norm(Net):
    """Keeps running means in buffers."""

    def begin(self):
        self.norm = nn.BatchNorm1d(16)

    def between(self, x, h):
        return h + self.norm(h)


class BufferInPlace(Net):
    """Adds to a buffer in place and lets the output depend on it."""

    def begin(self):
        self.register_buffer("total", torch.zeros(16))

    def between(self, x, h):
        self.total.mul_(0.9).add_(h.detach().mean(0))
        return h + 0.1 * self.total.clone()


class OwnGenerator(Net):
    """Draws from a generator of its own."""

    def begin(self):
        self.chance = torch.Generator().manual_seed(7)

    def between(self, x, h):
        return h + 0.3 * torch.randn(h.shape, generator=self.chance)


class ClosureGenerator(Net):
    """Draws from a generator that only a closure knows."""

    def begin(self):
        chance = torch.Generator().manual_seed(7)
        self.noise = lambda shape: torch.randn(shape, generator=chance)

    def between(self, x, h):
        return h + 0.3 * self.noise(h.shape)


class GlobalGenerator(Net):
    """Draws from a generator that is a global of its Python module."""

    def between(self, x, h):
        return h + 0.3 * torch.randn(h.shape, generator=CHANCE)


class NumpyChance(Net):
    """Draws from numpy's global random state."""

    def between(self, x, h):
        return h * torch.from_numpy((numpy.random.rand(*h.shape) > 0.3).astype("float32"))


class NumpyGenerator(Net):
    """Draws from a numpy generator of its own."""

    def begin(self):
        self.chance = numpy.random.default_rng(7)

    def between(self, x, h):
        return h * float(self.chance.uniform(0.5, 1.0))


class PythonChance(Net):
    """Leaves a layer out by Python's global random state."""

    def between(self, x, h):
        return h * 0.5 if random.random() < 0.3 else h


class PythonRandom(Net):
    """Leaves a layer out by a random state of its own."""

    def begin(self):
        self.chance = random.Random(7)

    def between(self, x, h):
        return h * 0.5 if self.chance.random() < 0.3 else h


class Tally(Net):
    """Counts its calls."""

    def begin(self):
        self.tally = 0

    def between(self, x, h):
        self.tally += 1
        return h * (1.0 + 0.2 * (self.tally % 2))


class ConfigTally(Net):
    """Counts its calls on a plain object that it was given."""

    def begin(self):
        self.config = SimpleNamespace(tally=0)

    def between(self, x, h):
        self.config.tally += 1
        return h * (1.0 + 0.2 * (self.config.tally % 2))


class GlobalTally(Net):
    """Counts its calls in a global of its Python module."""

    def between(self, x, h):
        global CALLS
        CALLS += 1
        return h * (1.0 + 0.2 * (CALLS % 2))


class Cache(Net):
    """Keeps the mean of every fourth call in a dictionary and adds the older one."""

    def begin(self):
        self.cache: dict[int, torch.Tensor] = {}
        self.place = 0

    def between(self, x, h):
        self.place = (self.place + 1) % 4
        older = self.cache.get(self.place)
        self.cache[self.place] = h.detach().mean(0)
        return h if older is None else h + 0.2 * older


class Hidden(Net):
    """Carries a state from one call to the next."""

    def begin(self):
        self.state = torch.zeros(16)

    def between(self, x, h):
        self.state = 0.5 * self.state + 0.5 * h.detach().mean(0)
        return h + self.state


class Auxiliary(Net):
    """Collects losses that the loop adds to its own and clears."""

    def between(self, x, h):
        self.auxiliary.append(h.pow(2).mean())
        return h


class Momentum(Net):
    """Lets a second encoder follow the first inside the forward pass."""

    def begin(self):
        self.key = nn.Linear(8, 16)
        self.key.requires_grad_(False)

    def between(self, x, h):
        with torch.no_grad():
            for key, query in zip(self.key.parameters(), self.a.parameters(), strict=True):
                key.mul_(0.9).add_(query, alpha=0.1)
        return h + 0.3 * torch.relu(self.key(x)).detach()


class InputInPlace(Net):
    """Changes what it was given in place."""

    def forward(self, x):
        x.mul_(0.5).clamp_(-1e5, 1e5)
        return super().forward(x)


class UserHook(Net):
    """Has a hook of the user's that appends to a list elsewhere."""

    def begin(self):
        self.a.register_forward_hook(lambda module, args, output: SEEN.append(output.numel()))

    def between(self, x, h):
        return h * (1.0 + 0.2 * (len(SEEN) % 2))


KINDS = {kind.__name__: kind for kind in Net.__subclasses__()}


def frozen(value: Any) -> Any:
    """What a value holds, to be compared to the bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, torch.Generator):
        return value.get_state().numpy().tobytes()
    if isinstance(value, random.Random):
        return value.getstate()
    if isinstance(value, numpy.random.Generator):
        return repr(value.bit_generator.state)
    if isinstance(value, dict):
        return {key: frozen(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [frozen(item) for item in value]
    if isinstance(value, SimpleNamespace):
        return frozen(vars(value))
    if callable(value):
        return [frozen(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
    return repr(value)


def all_that_is_left(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Everything that a run has left behind: weights, attributes, hooks, and random states."""
    of_torch = set(vars(nn.Module()))
    return {
        "weights": state_bits(model, optimizer),
        "gradients": [frozen(parameter.grad) for parameter in model.parameters()],
        "attributes": {
            name: {key: frozen(item) for key, item in vars(module).items() if key not in of_torch}
            for name, module in model.named_modules()
        },
        "hooks": {
            name: {key: len(vars(module)[key]) for key in of_torch if key.endswith("_hooks")}
            for name, module in model.named_modules()
        },
        "globals": (CALLS, frozen(CHANCE), list(SEEN)),
        "chance": (
            frozen(torch.get_rng_state()),
            repr(numpy.random.get_state()),
            random.getstate(),
        ),
    }


def run(kind: str, mode: str | None, fault: str | None, steps: int, compiled: bool):
    """Trains one kind of module; gives losses and all that is left, and the guard."""
    torch.manual_seed(0)
    numpy.random.seed(0)
    random.seed(0)
    begin_globals()
    model = KINDS[kind]()
    if compiled:
        torch._dynamo.reset()
    called = torch.compile(model, backend="eager") if compiled else model
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    guard = tamegrad.watch(called, optimizer, mode, strict=True) if mode else None
    data = torch.randn(steps, 16, 8, generator=torch.Generator().manual_seed(1))
    losses = []
    for step, x in enumerate(data):
        y = x[:, :3].argmax(1)
        if fault == "large" and step == FAULT:
            x.mul_(1e4)
        loss = nn.functional.cross_entropy(called(x), y)
        if fault == "nan" and step == NAN:
            loss = loss * math.nan
        if model.auxiliary:
            loss = loss + 0.01 * sum(model.auxiliary)
            model.auxiliary.clear()
        learn(loss, optimizer, guard)
        losses.append(loss.item().hex())
    if guard is not None:
        guard.detach()
    return {"losses": losses, "data": frozen(data), **all_that_is_left(model, optimizer)}, guard


RUNS = {
    "calm": ("protect", None, 55, None),
    "large": ("observe", "large", FAULT + 6, FAULT),
    "nan": ("observe", "nan", NAN + 4, NAN),
}
"""Mode, fault, steps, and the onset."""
COMPILED = [Dropout, OwnGenerator, NumpyGenerator, PythonRandom, GlobalTally, Hidden, Momentum]


@pytest.mark.parametrize(
    ("kind", "fault", "compiled"),
    [
        *((kind, fault, False) for fault in RUNS for kind in KINDS),
        *((kind.__name__, "nan", True) for kind in COMPILED),
        ("OwnGenerator", "large", True),
    ],
)
def test_a_watched_run_is_the_bare_run(kind, fault, compiled):
    """Part by part."""
    mode, fault, steps, onset = RUNS[fault]
    expected, _ = run(kind, None, fault, steps, compiled)
    got, guard = run(kind, mode, fault, steps, compiled)
    assert got.keys() == expected.keys()
    for part, value in expected.items():
        assert got[part] == value, part
    assert guard.actions() == []
    assert guard.diagnosis().onset == onset


@pytest.mark.parametrize(("mode", "fault"), [("observe", 8), ("protect", None)])
def test_a_data_loader_with_workers_draws_the_same_batches(mode, fault):
    def start(mode):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        x = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
        data = torch.utils.data.TensorDataset(x, x[:, :3].argmax(1))
        loader = torch.utils.data.DataLoader(data, 16, shuffle=True, num_workers=2)
        optimizer, guard = watched(model, mode, torch.optim.Adam, 1e-3)
        losses = []
        for _ in range(3):
            for x, y in loader:
                loss = nn.functional.cross_entropy(model(x), y)
                if len(losses) == fault:
                    loss = loss * math.nan
                learn(loss, optimizer, guard)
                losses.append(loss.item().hex())
        if guard is not None:
            guard.detach()
        return losses, all_that_is_left(model, optimizer)

    assert start(mode) == start(None)


class Noted(Tally):
    """Counts its calls, and notes each in a file, which nobody can put back."""

    file = -1

    def between(self, x, h):
        os.write(self.file, b".")
        return super().between(x, h)


def alarm_twice(model: nn.Module) -> None:
    """A run that has a large batch and then losses that are NaN."""
    optimizer, guard = watched(model, kind=torch.optim.Adam, lr=1e-3)
    data = torch.randn(FAULT + 30, 16, 8, generator=torch.Generator().manual_seed(1))
    for step, x in enumerate(data):
        y = x[:, :3].argmax(1)
        loss = nn.functional.cross_entropy(model(x * (1e4 if step == FAULT else 1.0)), y)
        learn(loss * math.nan if step >= FAULT + 10 else loss, optimizer, guard)
    assert guard.step_number == FAULT + 30


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_user_is_told_once_what_had_to_be_put_back(tmp_path, told, compiled):
    torch.manual_seed(0)
    model = Noted()
    with open(tmp_path / "passes", "wb") as file:
        model.file = file.fileno()
        # The calm passes of a compiled model are run again too, until one of them moves something.
        alarm_twice(torch.compile(model, backend="eager") if compiled else model)
    assert model.tally == FAULT + 30
    assert len([message for message in told() if "tally" in message]) == 1
    assert len(told()) == 2, "the alarm is the other"
    assert (tmp_path / "passes").stat().st_size == FAULT + 30 + 1


def test_layers_are_seen_in_the_next_pass_where_none_can_be_repeated():
    torch.manual_seed(0)
    model = Tally()
    model.held = iter([1])
    optimizer, guard = watched(model, kind=torch.optim.Adam, lr=1e-3)
    waits = []
    for step in range(FAULT + 3):
        x = torch.randn(16, 8) * (1e4 if step == FAULT else 1.0)
        learn(nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)), optimizer, guard)
        waits.append(guard._steps.core.wants_repeated_trace())
    assert [step for step, wait in enumerate(waits) if wait] == [FAULT]


@pytest.mark.parametrize("kind", ["Dropout", "Norm", "BufferInPlace"])
def test_random_states_and_buffers_are_put_back_without_a_word(kind, told):
    torch.manual_seed(0)
    alarm_twice(KINDS[kind]())
    assert len(told()) == 1 and "see guard.diagnosis()" in told()[0]
