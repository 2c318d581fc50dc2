"""Settings that torch loops have: accumulation, loss scaling, compiling, checkpointing, several
optimizers, frozen and shared parameters."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
from conftest import Exp, acted, alarms, batches, learn, loop, loss_of, mlp, state_bits, watched
from torch import nn
from torch.utils.checkpoint import checkpoint

import tamegrad


def test_accumulated_gradients_are_judged_as_their_sum():
    model = mlp()
    optimizer, guard = watched(model, lr=0.01)
    for index, (x, y) in enumerate(batches(12)):
        (loss_of(model, x, y) / 4).backward()
        if index % 4 == 3:
            optimizer.step()
            total = math.hypot(*(float(p.grad.norm()) for p in model.parameters()))
            assert guard.gradient_norm == pytest.approx(total, rel=1e-6)
            optimizer.zero_grad()
    assert guard.step_number == 3


@pytest.mark.parametrize("at", [24, 25], ids=["unseen by hooks", "hooks see the first"])
@pytest.mark.parametrize("broken", [0, 2])
def test_the_micro_batch_that_broke_a_step_is_the_one_that_is_looked_into(at, broken):
    model = nn.Sequential(nn.Linear(16, 32), Exp(), nn.Linear(32, 4))
    optimizer, guard = watched(model, lr=0.01)
    for index, (x, y) in enumerate(batches(4 * at + 4)):
        x = x * 1e3 if index == 4 * at + broken else x * 0.1
        loss = loss_of(model, x, y) / 4
        guard.log(loss=loss)
        loss.backward()
        if index % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset, diagnosis.origin) == ("exploded", at, "1")
    assert diagnosis.cause == "data"


def test_a_loss_of_a_step_that_was_left_out_is_not_that_of_the_next():
    model = mlp()
    optimizer, guard = watched(model, lr=0.01)
    for index, (x, y) in enumerate(batches(80)):
        loss = loss_of(model, x, y)
        guard.log(loss=loss * math.inf if index == 20 else loss)
        if index != 20:
            learn(loss, optimizer)
    assert [finding.step for finding in guard.findings()] == [20]
    assert guard.diagnosis().verdict == "recovered" and guard.step_number == 80


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clips", [False, True])
def test_a_loss_scale_is_taken_out_and_its_back_offs_are_no_alarm(fused, clips, mode):
    def run(mode):
        model = mlp()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=20)
        guard = tamegrad.watch(model, optimizer, mode, scaler=scaler, strict=True) if mode else None
        norms = []
        for x, y in batches(80):
            optimizer.zero_grad()
            loss = 64.0 * loss_of(model, x, y)
            scaler.scale(loss).backward()
            if clips and guard is not None:
                guard.clip_(1e3, loss=loss)
            elif clips:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1e3)
            scaler.step(optimizer)
            scaler.update()
            if guard is not None:
                norms.append(guard.gradient_norm)
        return model, optimizer, guard, norms, scaler

    bare, (model, optimizer, guard, norms, scaler) = run(None), run(mode)
    assert scaler.get_scale() < 2.0**127
    assert guard.findings() == []
    assert 60 < guard.step_number < 80, "some steps were left out by the scaler"
    assert 1e-1 < norms[-1] < 1e3
    assert state_bits(model, optimizer) == state_bits(*bare[:2])


@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param(
            "inductor", marks=pytest.mark.skipif(not shutil.which("g++"), reason="needs a compiler")
        ),
    ],
)
def test_a_compiled_model_is_watched_and_its_layer_named(backend):
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 4))
    compiled = torch.compile(model, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    guard = tamegrad.watch(compiled, optimizer, strict=True)
    for step, (x, y) in enumerate(batches(30)):
        if step == 20:
            with torch.no_grad():
                model[2].weight[0, 0] = math.inf
        learn(loss_of(compiled, x, y), optimizer, guard)
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset) == ("exploded", 20)
    assert diagnosis.origin == "2"


def test_compiling_after_watching_breaks_no_graph():
    model = mlp(2)
    optimizer, guard = watched(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    loop(compiled, optimizer, steps=5)
    assert guard.step_number == 5


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_layers_are_seen_once(reentrant):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)
            self.middle = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))

        def forward(self, x):
            h = checkpoint(self.middle, self.first(x), use_reentrant=reentrant)
            return self.last(h)

    torch.manual_seed(0)
    model = Net()
    optimizer, guard = watched(model, lr=0.01)
    loop(model, optimizer, steps=1)
    names = [layer[0] for layer in guard._steps.passes.probes.layers]
    assert names == ["first", "middle.0", "middle.1", "middle.2", "last"]
    deltas = guard._steps.passes.trace.delta_norms()
    assert all(delta > 0 for delta in deltas if delta == delta)
    assert deltas[0] > 0 and deltas[-1] > 0


def test_two_optimizers_on_one_loss_are_one_step():
    model = mlp()
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    optimizers = [torch.optim.SGD(weights, lr=0.02), torch.optim.AdamW(biases, lr=1e-3)]
    guard = tamegrad.watch(model, optimizers, "protect", strict=True)
    before = None
    for step, (x, y) in enumerate(batches(20)):
        if step == 10:
            x[0] = math.inf
            before = [p.detach().clone() for p in model.parameters()]
        model.zero_grad()
        loss_of(model, x, y).backward()
        for optimizer in optimizers:
            optimizer.step()
        if step == 10:
            assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert guard.step_number == 20
    assert acted(guard) == [(10, "skip")]


def test_frozen_parameters_are_absent_and_new_zeros_are_no_alarm():
    class Lora(nn.Module):
        def __init__(self, base: nn.Linear):
            super().__init__()
            self.base = base.requires_grad_(False)
            self.a = nn.Parameter(torch.randn(4, base.in_features) * 0.1)
            self.b = nn.Parameter(torch.zeros(base.out_features, 4))

        def forward(self, x):
            return self.base(x) + x @ self.a.t() @ self.b.t()

    torch.manual_seed(0)
    model = nn.Sequential(Lora(nn.Linear(16, 32)), nn.Tanh(), Lora(nn.Linear(32, 4)))
    optimizer, guard = watched(model, "protect", torch.optim.AdamW, 5e-3)
    loop(model, optimizer, guard, steps=150)
    assert (alarms(guard), guard.actions()) == ([], [])


def test_a_shared_parameter_counts_once():
    embedding = nn.Embedding(10, 8)
    head = nn.Linear(8, 10, bias=False)
    head.weight = embedding.weight
    model = nn.Sequential(embedding, head)
    optimizer, guard = watched(model)
    tokens = torch.arange(10)
    learn(loss_of(model, tokens, tokens), optimizer)
    assert guard.gradient_norm == pytest.approx(float(embedding.weight.grad.norm()), rel=1e-6)


def test_sparse_gradients_are_judged_and_clipped():
    model = nn.Embedding(50, 4, sparse=True)
    optimizer, guard = watched(model, "protect")
    model(torch.tensor([3, 3, 7])).sum().backward()
    assert float(guard.clip_(1.0)) == pytest.approx(math.sqrt(4 * 4.0 + 4 * 1.0))
    assert float(model.weight.grad.coalesce().values().norm()) == pytest.approx(1.0)
    optimizer.step()
    assert guard.step_number == 1


def test_a_parameter_group_that_is_added_is_watched():
    model, extra = mlp(), nn.Parameter(torch.ones(3))
    optimizer, guard = watched(model, lr=0.1)
    for factor in (None, 1.0, math.inf):
        if factor == 1.0:
            optimizer.add_param_group({"params": [extra]})
        learn(model(torch.ones(2, 16)).sum() + (factor or 0.0) * extra.sum(), optimizer)
    assert [finding.tensor for finding in guard.findings()] == [None, "group1.0"]
    assert [finding.evidence[0].quantity for finding in guard.findings()] == [
        "loss",
        "nonfinite-elements",
    ]


def test_an_optimizer_of_another_model_is_warned_of(told):
    model, other = mlp(), mlp()
    tamegrad.watch(model, torch.optim.SGD(other.parameters(), lr=0.1))
    (warning,) = told()
    assert "holds none of the model's parameters" in warning
    # An input that is learned along with the model is no reason to warn.
    learned = nn.Parameter(torch.ones(3))
    tamegrad.watch(model, torch.optim.SGD([*model.parameters(), learned], lr=0.1))
    tamegrad.watch(model, torch.optim.SGD([model[0].weight], lr=0.1))
    assert told() == [warning]


def test_a_recurrent_cell_is_a_layer_for_each_step():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out, self.act = nn.RNNCell(16, 8), nn.Linear(8, 4), nn.Tanh()

        def forward(self, x):
            h = torch.zeros(x.shape[0], 8)
            for _ in range(3):
                h = self.act(self.cell(x, h))
            return self.out(h)

    model = Net()
    optimizer, guard = watched(model, lr=0.01)
    loop(model, optimizer, steps=1)
    layers = {name: recurrent for name, *_, recurrent in guard._steps.passes.probes.layers}
    assert layers == {
        "cell@0": True, "act@0": False, "cell@1": True, "act@1": False,
        "cell@2": True, "act@2": False, "out": False,
    }  # fmt: skip
