"""Optimizers of all kinds: with closures, wrapped, exchanged, grown, dropped, and none at all."""

from __future__ import annotations

import copy
import gc
import math
import multiprocessing
import weakref

import pytest
import torch
from conftest import (
    acted,
    alarms,
    batches,
    is_finite,
    learn,
    loop,
    loss_of,
    mlp,
    state_bits,
    times,
    watched,
)
from torch import nn

import tamegrad


def broken(at: int):
    """For ``at_step``: the inputs of one step are Inf."""
    return times(math.inf, at)


class Sam(torch.optim.Optimizer):
    """Steps to where the loss is larger, and from there down: calls its closure twice."""

    def __init__(self, parameters, lr=0.02, rho=0.05):
        super().__init__(parameters, {"lr": lr, "rho": rho})

    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            held = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            before = [parameter.clone() for parameter in held]
            for parameter in held:
                parameter.add_(parameter.grad, alpha=self.param_groups[0]["rho"])
            with torch.enable_grad():
                closure()
            for parameter, old in zip(held, before, strict=True):
                parameter.copy_(old)
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=self.param_groups[0]["lr"])
        return loss


CLOSURES = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "sam": Sam,
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.5, max_iter=4),
    "lbfgs-wolfe": lambda p: torch.optim.LBFGS(p, max_iter=4, line_search_fn="strong_wolfe"),
}


def run_closure(kind, mode, *, broken=None, at_call=0, value=math.nan, steps=40):
    """Trains by closures; at step ``broken`` the loss is multiplied by ``value`` from call
    ``at_call`` on. Gives the model, its state, losses and calls, and the guard."""
    model = mlp(2)
    optimizer = CLOSURES[kind](model.parameters())
    losses, calls = [], []
    data = next(batches(1, size=64)) if kind.startswith("lbfgs") else None
    guard = tamegrad.watch(model, optimizer, mode) if mode else None
    for step, batch in enumerate(batches(steps)):
        x, y = data or batch
        calls.append(0)

        def closure(x=x, y=y, step=step):
            optimizer.zero_grad()
            loss = loss_of(model, x, y)
            if step == broken and calls[-1] >= at_call:
                loss = loss * value
            calls[-1] += 1
            loss.backward()
            return loss

        losses.append(float(optimizer.step(closure)))
    state = [value.detach().numpy().tobytes() for value in model.parameters()]
    return model, (state, losses, calls), guard


@pytest.mark.parametrize("kind", CLOSURES)
def test_a_healthy_run_of_closures_is_the_bare_run(kind, mode, told):
    _, bare, _ = run_closure(kind, None)
    _, got, guard = run_closure(kind, mode)
    assert got == bare
    assert told() == []
    assert alarms(guard) == [] and guard.actions() == []
    assert guard.step_number == 40


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("kind", "at_call"),
    [(kind, call) for kind in CLOSURES for call in (0, 1, 3) if call == 0 or kind[0] == "l"]
    + [("sam", 1)],
)
def test_protect_keeps_the_weights_finite_when_a_closure_is_broken(kind, at_call, value):
    bare, *_ = run_closure(kind, None, broken=20, at_call=at_call, value=value)
    model, (_, losses, _), guard = run_closure(
        kind, "protect", broken=20, at_call=at_call, value=value
    )
    assert is_finite(model)
    assert guard.step_number == 40
    assert losses[-1] < losses[0]
    if at_call == 0:
        assert not is_finite(bare), "the fault is one"
        assert acted(guard)[0][0] == 20


def test_a_closure_that_breaks_in_a_calm_run_is_taken_back_too():
    model, _, guard = run_closure("sam", "protect", broken=120, at_call=1, steps=125)
    assert is_finite(model)
    assert [step for step, _ in guard.actions()] == [120]


class Derived(torch.optim.AdamW):
    """Does something round its parent's step."""

    fails = False

    def step(self, closure=None):
        if self.fails:
            raise KeyboardInterrupt
        return super().step(closure)


def test_a_step_that_calls_its_parents_is_one_step(mode):
    torch.optim.AdamW(mlp(1).parameters())  # From now on AdamW's own step runs hooks as well.
    states = []
    for with_mode in (None, mode):
        model = mlp(2)
        optimizer, guard = watched(model, with_mode, Derived, 1e-3)
        loop(model, optimizer, guard)
        optimizer.fails = True
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
        optimizer.fails = False
        loop(model, optimizer, guard, steps=10)
        states.append(state_bits(model, optimizer))
    assert states[0] == states[1]
    # The step that was interrupted is one whose update changed nothing.
    assert guard.step_number == 41
    assert len(guard._steps.core.findings(0)) == 0


class OnlyByClosure(torch.optim.SGD):
    """Cannot step without a closure, which it calls once."""

    def step(self, closure):
        return super().step(closure)


def test_an_update_that_cannot_be_made_anew_is_refused():
    model = mlp(2)
    optimizer, guard = watched(model, "protect", OnlyByClosure)
    for step, (x, y) in enumerate(batches(132)):
        optimizer.param_groups[0]["lr"] = 1e4 if step == 130 else 0.02
        before = [parameter.detach().clone() for parameter in model.parameters()]

        def closure(x=x, y=y):
            optimizer.zero_grad()
            loss = loss_of(model, x, y)
            loss.backward()
            return loss

        optimizer.step(closure)
        same = all(map(torch.equal, before, model.parameters()))
        assert same == (step == 130), step
    assert acted(guard) == [(130, "skip")]


def test_the_memory_of_a_copy_is_given_back_in_a_calm_run():
    model = mlp(2)
    optimizer, guard = watched(model, "protect", torch.optim.AdamW, 1e-4)
    held = []
    for x, y in batches(400):
        learn(loss_of(model, x, y), optimizer)
        held.append(guard._steps.update._copy is not None)
    assert held[50] and not held[-1]


@pytest.mark.parametrize("kind", ["adam", "lbfgs"])
def test_the_losses_of_closures_are_seen(kind):
    _, _, guard = run_closure(kind, "observe")
    assert "Loss  " in str(guard.diagnosis())


class Lookahead(torch.optim.Optimizer):
    """Holds another optimizer, and never called the constructor of its class."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups, self.state = optimizer.param_groups, optimizer.state
        self.defaults = optimizer.defaults

    def step(self, closure=None):
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none=True):
        self.optimizer.zero_grad(set_to_none)


class Holder:
    """Looks like an optimizer and is none."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


class Chained:
    """Holds a list of optimizers, as Megatron's does."""

    def __init__(self, optimizer):
        self.optimizers = [optimizer]
        self.step, self.zero_grad = optimizer.step, optimizer.zero_grad


def prepared(optimizer):
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(optimizer)


WRAPPERS = {
    "lookahead": Lookahead,
    "holder": Holder,
    "chained": Chained,
    "holder-of-lookahead": lambda optimizer: Holder(Lookahead(optimizer)),
    "accelerate": prepared,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_optimizer_is_looked_into(wrapper, mode):
    states = []
    for with_mode in (None, mode):
        model = mlp(2)
        inner = torch.optim.AdamW(model.parameters(), lr=1e-3)
        wrapped = WRAPPERS[wrapper](inner)
        guard = tamegrad.watch(model, wrapped, mode, strict=True) if with_mode else None
        loop(model, wrapped, guard)
        states.append(state_bits(model, inner))
    assert states[0] == states[1]
    assert guard.step_number == 30
    loop(model, WRAPPERS[wrapper](inner), guard, at_step=broken(5), steps=10)
    assert guard.step_number == 40
    assert is_finite(model) == (mode == "protect")


@pytest.mark.parametrize("listed", [False, True])
def test_what_is_no_optimizer_is_said_and_what_to_give(listed):
    class Plain:
        def step(self):
            pass

    given = [Plain()] if listed else Plain()
    with pytest.raises(TypeError) as error:
        tamegrad.watch(mlp(2), given)
    message = str(error.value)
    assert message.startswith("optimizer: got Plain, want a torch.optim.Optimizer")
    assert ".optimizer" in message and "None" in message, "what can be given in its place"


def by_hand(mode, broken_at=None):
    """Updates without an optimizer; gives the model, losses, answers and guard."""
    model = mlp(2)
    guard = tamegrad.watch(model, None, mode, strict=True) if mode else None
    losses, answers = [], []
    for step, (x, y) in enumerate(batches(40)):
        loss = loss_of(model, x * math.inf if step == broken_at else x, y)
        model.zero_grad()
        loss.backward()
        before = [parameter.grad for parameter in model.parameters()]
        answers.append(True if guard is None else guard.step(loss=loss))
        assert all(p.grad is g for p, g in zip(model.parameters(), before, strict=True))
        if answers[-1]:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(parameter.grad, alpha=0.05)
        losses.append(loss.item().hex())
    return model, losses, answers, guard


@pytest.mark.parametrize(
    ("mode", "broken_at"), [("observe", None), ("observe", 20), ("protect", None)]
)
def test_updates_by_hand_are_those_of_the_bare_run(mode, broken_at):
    bare, expected, _, _ = by_hand(None, broken_at)
    model, losses, answers, guard = by_hand(mode, broken_at)
    assert losses == expected
    for a, b in zip(model.parameters(), bare.parameters(), strict=True):
        assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    assert answers == [True] * 40
    assert guard.diagnosis().onset == broken_at
    assert guard.diagnosis().cause == ("data" if broken_at else None)


def test_an_update_by_hand_that_would_break_the_weights_is_refused():
    model, losses, answers, guard = by_hand("protect", 20)
    assert [step for step, answer in enumerate(answers) if answer is not True] == [20]
    assert answers[20] is False
    assert is_finite(model)
    assert float.fromhex(losses[-1]) < float.fromhex(losses[0])
    assert acted(guard) == [(20, "skip")]


def test_parameters_that_were_added_later_are_watched(mode, told):
    model = mlp(2)
    head = model[-1]
    body = [p for name, p in model.named_parameters() if not name.startswith("4.")]
    optimizer = torch.optim.SGD(body, lr=0.02)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    loop(model, optimizer, guard, steps=10)
    optimizer.add_param_group({"params": list(head.parameters())})
    loop(model, optimizer, guard, steps=10)
    assert told() == []
    x, y = next(batches(1))
    optimizer.zero_grad()
    loss_of(model, x, y).backward()
    head.weight.grad[0, 0] = math.nan
    optimizer.step()
    loop(model, optimizer, guard, steps=3)
    assert len(told()) == 1, "the alarm"
    assert is_finite(model) == (mode == "protect")
    assert guard.diagnosis().onset == 20
    assert guard.step_number == 24
    found = guard.findings()[0]
    assert found.tensor == "4.weight" or "4.weight" in str(guard.diagnosis())


def test_another_optimizer_on_the_same_parameters_is_watched(mode):
    model = mlp(2)
    optimizer, guard = watched(model, mode)
    loop(model, optimizer, guard, steps=10)
    del optimizer
    gc.collect()
    loop(model, torch.optim.AdamW(model.parameters(), lr=1e-3), guard, steps=10)
    assert guard.step_number == 20
    loop(model, torch.optim.AdamW(model.parameters()), guard, steps=10, at_step=broken(5))
    assert guard.step_number == 30
    assert guard.diagnosis().onset == 25
    assert is_finite(model) == (mode == "protect")


@pytest.mark.parametrize("way", ["assign", "layers"])
def test_parameters_that_take_the_place_of_ours_are_watched(way):
    model = mlp(2)
    optimizer, guard = watched(model, kind=torch.optim.AdamW, lr=1e-3)
    loop(model, optimizer, guard)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if way == "assign":
        model.load_state_dict(state, assign=True)
    else:
        model[0], model[2] = nn.Linear(16, 32), nn.Linear(32, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loop(model, optimizer, guard, at_step=broken(10), steps=20)
    assert guard.step_number == 50
    assert (guard.diagnosis().onset, guard.diagnosis().cause) == (40, "data")


def test_an_optimizer_of_other_parameters_is_not_watched():
    model, other = mlp(2), mlp(2)
    optimizer, guard = watched(model)
    loop(model, optimizer, guard, steps=5)
    loop(other, watched(other, None)[0], steps=5, at_step=broken(2))
    copied = copy.deepcopy(other)
    loop(copied, watched(copied, None)[0], steps=5)
    assert guard.step_number == 5
    assert alarms(guard) == []


@pytest.mark.parametrize("new_optimizer", [False, True])
def test_the_second_guard_takes_the_place_of_the_first(new_optimizer, mode, told):
    model = mlp(2)
    optimizer, first = watched(model, mode, strict=False)
    loop(model, optimizer, first, steps=5)
    if new_optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    second = tamegrad.watch(model, optimizer, mode)
    loop(model, optimizer, second, steps=10, at_step=broken(5))
    assert (first.diagnosis().onset, second.diagnosis().onset) == (None, 5)
    assert second.step_number == 10
    assert len(told()) == 1 and told()[0].startswith("step 5:")
    assert is_finite(model) == (mode == "protect")


@pytest.mark.parametrize("steps", [0, 5])
def test_what_nobody_holds_is_collected(steps, mode):
    model = mlp(2)
    optimizer, guard = watched(model, mode, torch.optim.AdamW, 1e-3)
    loop(model, optimizer, guard, steps=steps)
    held = {
        "model": weakref.ref(model),
        "optimizer": weakref.ref(optimizer),
        "guard": weakref.ref(guard),
        "weight": weakref.ref(model[0].weight),
    }
    del model, optimizer, guard
    gc.collect()
    assert [name for name, reference in held.items() if reference() is not None] == []


def test_a_guard_that_nobody_holds_goes_on_while_the_run_does(mode, told):
    model = mlp(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    tamegrad.watch(model, optimizer, mode)
    gc.collect()
    loop(model, optimizer, steps=10, at_step=broken(5))
    assert len(told()) == 1
    assert is_finite(model) == (mode == "protect")


def test_a_process_that_was_forked_after_a_step_goes_on(mode):
    torch.manual_seed(0)
    # Large enough for the reads to be shared among threads, which a fork leaves behind.
    model = nn.Linear(3000, 3000, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)

    def step():
        learn(model(torch.ones(2, 3000)).pow(2).mean(), optimizer, guard, clip=1.0)

    step()
    child = multiprocessing.get_context("fork").Process(target=step)
    child.start()
    child.join(20.0)
    code = child.exitcode
    if code is None:
        child.kill()
        child.join()
    assert code == 0, "None is a child that hangs"
    step()
    assert guard.step_number == 2
