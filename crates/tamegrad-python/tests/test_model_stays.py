"""A watched model can be saved, copied, traced, exported and compiled as a bare one."""

from __future__ import annotations

import copy
import io
import json
import math
import pickle
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from conftest import batches, is_finite, learn, loop, loss_of, mlp, state_bits, watched
from torch import nn

import tamegrad

STARTS = {"fresh": 0, "armed": 3}


@pytest.fixture(params=STARTS.values(), ids=STARTS)
def start(request):
    """Steps that were made before; with a trace at every step the probes are armed after them."""
    return request.param


class Within(nn.Module):
    """Has a perceptron within."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


class OwnDeepcopy(Within):
    """Copies its ``__dict__`` by itself."""

    def __deepcopy__(self, memo):
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        for key, value in self.__dict__.items():
            made.__dict__[key] = copy.deepcopy(value, memo)
        return made


class OwnState(Within):
    """Gives its ``__dict__`` as the state to pickle, and takes it back."""

    def __getstate__(self):
        return self.__dict__.copy()

    def __setstate__(self, state):
        self.__dict__.update(state)


def trained(model: nn.Module, steps: int, mode: str | None = "observe"):
    """The optimizer of a model after some steps, and its guard."""
    optimizer, guard = watched(model, mode, torch.optim.AdamW, 1e-3, trace_every=1)
    loop(model, optimizer, guard, steps=steps)
    return optimizer, guard


def bare(model: nn.Module, steps: int) -> nn.Module:
    """The same model where nobody watches."""
    trained(model, steps, mode=None)
    return model


def infinite(step, model, optimizer, x):
    return x * math.inf


SLOT = "_compiled_call_impl"
"""torch's attribute for a compiled call; `None` there is an empty one."""


def traces(model: nn.Module) -> dict[str, Any]:
    """The class of each module, the names of its attributes, and how many hooks it has."""
    return {
        name: (
            type(module),
            {key for key, value in vars(module).items() if (key, value) != (SLOT, None)},
            {key: len(value) for key, value in vars(module).items() if isinstance(value, Mapping)},
        )
        for name, module in model.named_modules()
    }


def saved_and_loaded(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def averaged(model: nn.Module) -> nn.Module:
    average = torch.optim.swa_utils.AveragedModel(model)
    average.update_parameters(model)
    return average.module


def moving_average(model: nn.Module) -> nn.Module:
    average = copy.deepcopy(model).eval().requires_grad_(False)
    with torch.no_grad():
        for mean, parameter in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(parameter, 0.1)
    return average.train().requires_grad_()


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "save": saved_and_loaded,
    "averaged": averaged,
    "moving-average": moving_average,
}
MODELS = {"plain": lambda: mlp(2), "own-deepcopy": OwnDeepcopy, "own-state": OwnState}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_has_no_trace_of_the_guard(way, model, start):
    torch.manual_seed(0)
    original = MODELS[model]()
    torch.manual_seed(0)
    expected = COPIES[way](bare(MODELS[model](), start))
    optimizer, _ = trained(original, start)
    made = COPIES[way](original)
    assert traces(made) == traces(expected)
    assert state_bits(made, optimizer) == state_bits(original, optimizer)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", COPIES)
def test_the_guard_sees_nothing_of_what_a_copy_does(way, model, start):
    states = []
    for copies in (False, True):
        torch.manual_seed(0)
        original = MODELS[model]()
        optimizer, guard = trained(original, start)
        if copies:
            made = COPIES[way](original)
            with torch.no_grad():
                made(torch.full((2, 16), math.nan))
            loop(made, watched(made, None)[0], steps=3, at_step=infinite)
        loop(original, optimizer, guard, steps=2, seed=2)
        states.append((guard.state_dict(), state_bits(original, optimizer)))
    assert states[0] == states[1]


LOADS = """
import sys
sys.modules["tamegrad"] = None
import torch
for path in sys.argv[1:]:
    model = torch.load(path, weights_only=False)
    print(model(torch.ones(1, 16)).tolist())
"""


def test_a_saved_model_is_loaded_where_there_is_no_tamegrad(tmp_path):
    paths, expected = [], []
    for start, steps in STARTS.items():
        model = mlp(2)
        trained(model, steps)
        paths.append(str(tmp_path / f"{start}.pt"))
        torch.save(model, paths[-1])
        expected.append(bare(mlp(2), steps)(torch.ones(1, 16)).tolist())
    result = subprocess.run(
        [sys.executable, "-c", LOADS, *paths], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert [json.loads(line) for line in result.stdout.splitlines()] == expected


X = torch.linspace(-1.0, 1.0, 32).reshape(2, 16)


def called_with_zeros(model: nn.Module) -> torch.Tensor:
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    return torch.func.functional_call(model, zeros, X)


CONVERSIONS = {
    "jit-trace": lambda model: torch.jit.trace(model, X)(X),
    "jit-script": lambda model: torch.jit.script(model)(X),
    "export": lambda model: torch.export.export(model, (X,)).module()(X),
    "fx": lambda model: torch.fx.symbolic_trace(model)(X),
    "functional-call": called_with_zeros,
}


@pytest.mark.parametrize("way", CONVERSIONS)
def test_a_watched_model_is_converted_as_a_bare_one(way, start):
    expected = CONVERSIONS[way](bare(mlp(2), start))
    model = mlp(2)
    optimizer, guard = trained(model, start)
    assert torch.equal(CONVERSIONS[way](model), expected)
    loop(model, optimizer, guard, steps=3, seed=2)
    assert guard.step_number == start + 3
    assert torch.isfinite(model(X)).all()


def test_what_was_exported_and_traced_holds_no_hook():
    expected, model = mlp(2), mlp(2)
    trained(model, 3)
    for convert in (torch.fx.symbolic_trace, lambda m: torch.export.export(m, (X,))):
        graphs = [
            [(n.op, str(n.target)) for n in convert(m).graph.nodes] for m in (expected, model)
        ]
        assert graphs[0] == graphs[1]


@pytest.mark.parametrize("in_place", [False, True], ids=["torch.compile", "module.compile"])
def test_a_model_that_is_compiled_after_watch_trains_as_a_bare_one(in_place, told):
    def run(mode):
        torch._dynamo.reset()
        model = mlp(2)
        optimizer, guard = watched(model, mode, torch.optim.AdamW, 1e-3)
        called = model
        if in_place:
            model.compile(backend="eager")
        else:
            called = torch.compile(model, backend="eager")
        loop(called, optimizer, guard, steps=20)
        before = state_bits(model, optimizer)
        loop(called, optimizer, guard, steps=1, seed=2, at_step=infinite)
        return (before, state_bits(model, optimizer)), guard

    (expected, _), (got, guard) = run(None), run("observe")
    assert got == expected
    assert guard.step_number == 21
    diagnosis = guard.diagnosis()
    # What `torch.compile` wraps afterwards is called by a name that the guard does not know.
    assert (diagnosis.onset, diagnosis.cause) == (20, "data" if in_place else None)
    assert len(told()) == 1, "the alarm"


def test_preflight_of_a_watched_model_is_that_of_a_bare_one(start):
    def fly(model, optimizer):
        return tamegrad.preflight(model, lambda m, b: loss_of(m, *b), next(batches(1)), optimizer)

    model = mlp(2)
    expected = fly(model, trained(model, start, mode=None)[0])
    model = mlp(2)
    optimizer, guard = trained(model, start)
    state = guard.state_dict()
    got = fly(model, optimizer)
    assert [layer.name for layer in got.layers] == [layer.name for layer in expected.layers]
    assert str(got) == str(expected)
    assert guard.state_dict() == state


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copied_optimizer_is_not_watched(way, start):
    model = mlp(2)
    optimizer, guard = trained(model, start)
    state = guard.state_dict()
    # Together with the model: the copy's parameters are those of the model's copy.
    made, copied = COPIES[way]((model, optimizer))
    assert set(vars(copied)) == set(vars(copy.deepcopy(torch.optim.AdamW(mlp(2).parameters()))))
    hooks = [value for key, value in vars(copied).items() if key.endswith("hooks")]
    assert hooks and not any(hooks)
    loop(made, copied, steps=2, at_step=infinite)
    assert guard.state_dict() == state
    assert is_finite(model)


class Scaled(nn.Module):
    """Multiplies by a number that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0
        self.inner = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_a_replica_calls_itself(start):
    model = Scaled()
    optimizer, guard = watched(model, trace_every=1)
    for _ in range(start):
        learn(model.inner(model(X)).sum(), optimizer, guard)
    replica = model._replicate_for_data_parallel()
    replica.factor = 3.0
    assert torch.equal(replica(X), 3.0 * X)
    assert torch.equal(model(X), X)
    expected = set(vars(Scaled()._replicate_for_data_parallel())) | {"factor"}
    assert set(vars(replica)) - {"_compiled_call_impl"} == expected


@pytest.mark.parametrize("first", [0, 1])
def test_guards_of_two_parts_leave_nothing_in_whatever_order_they_go(first):
    model = mlp(2)
    parts = [torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 2)]
    guards = [tamegrad.watch(model, part, strict=True) for part in parts]
    guards[first].detach()
    model(torch.ones(2, 16)).sum().backward()
    parts[1 - first].step()
    assert [guard.step_number for guard in guards] == [first, 1 - first]
    guards[1 - first].detach()
    assert not [m for m in model.modules() if SLOT in vars(m)]


def test_a_thread_that_serves_the_model_is_no_part_of_the_training(mode):
    states = []
    for with_mode in (None, mode):
        model = mlp(3)
        optimizer, guard = trained(model, 0, with_mode)
        done = threading.Event()

        def serve(records, model=model, done=done):
            while not done.is_set():
                with torch.set_grad_enabled(records):
                    model(torch.ones(8, 16))

        loop(model, optimizer, guard, steps=1)
        threads = [threading.Thread(target=serve, args=(flag,)) for flag in (False, True)]
        for thread in threads:
            thread.start()
        loop(model, optimizer, guard, steps=150)
        done.set()
        for thread in threads:
            thread.join()
        states.append(state_bits(model, optimizer))
    assert states[0] == states[1]
    assert (guard.step_number, guard.failure) == (151, None)
    assert [name for name, *_ in guard._steps.passes.probes.layers][:2] == ["0", "1"]
