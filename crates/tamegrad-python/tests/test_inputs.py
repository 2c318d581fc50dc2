"""All that a model is given is data, but for the state that the loop carries."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import learn, watched
from torch import nn
from torch.nn import functional as F

import tamegrad

ADAM = torch.optim.Adam


def assert_data(guard):
    """The data of step 25 is what broke the run."""
    assert (guard.diagnosis().onset, guard.diagnosis().cause) == (25, "data")


class Two(nn.Module):
    """Takes two tensors, apart or in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(8, 16), nn.Linear(4, 16), nn.Linear(16, 3)

    def forward(self, x=None, extra=None):
        if isinstance(x, dict):
            x, extra = x["x"], x["extra"]
        return self.out(torch.relu(self.a(x) + self.b(extra)))


CALLS = {
    "positional": (lambda model, x, extra: model(x, extra), "extra"),
    "keyword": (lambda model, x, extra: model(x=x, extra=extra), "extra"),
    "entry": (lambda model, x, extra: model({"x": x, "extra": extra}), "x.extra"),
}


@pytest.mark.parametrize("call, name", CALLS.values(), ids=CALLS)
def test_the_argument_that_is_not_finite_is_named(call, name):
    torch.manual_seed(0)
    model = Two()
    optimizer, guard = watched(model, kind=ADAM, lr=1e-3)
    for step in range(30):
        x, extra = torch.randn(16, 8), torch.randn(16, 4)
        extra[3, 1] = math.nan if step == 25 else extra[3, 1]
        loss = F.cross_entropy(call(model, x, extra), x[:, :3].argmax(1))
        learn(loss, optimizer, guard)
    assert guard.diagnosis().place == "data"
    assert_data(guard)
    assert f"input `{name}`" in str(guard.diagnosis())


def test_the_first_of_two_passes_is_data_as_well():
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
    optimizer, guard = watched(critic, kind=ADAM, lr=1e-3)
    for step in range(30):
        real = torch.randn(16, 2) * (math.inf if step == 25 else 1.0)
        loss = F.softplus(-critic(real)).mean() + F.softplus(critic(torch.randn(16, 2))).mean()
        assert len(guard._steps.passes.calls) == 2
        learn(loss, optimizer, guard)
    assert_data(guard)


def test_every_micro_batch_is_data():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer, guard = watched(model, kind=ADAM, lr=1e-3)
    for step in range(30):
        optimizer.zero_grad()
        for part in range(3):
            x = torch.randn(8, 4) * (math.inf if (step, part) == (25, 0) else 1.0)
            F.cross_entropy(model(x), torch.zeros(8).long()).backward()
            assert len(guard._steps.passes.calls) == 1, "what is over is let go"
        optimizer.step()
    assert_data(guard)


class Words(nn.Module):
    """A language model whose hidden state the loop carries."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(50, 16), nn.RNN(16, 16, nonlinearity="relu")
        self.out = nn.Linear(16, 50)

    def forward(self, words, hidden):
        output, hidden = self.rnn(self.embed(words), hidden)
        return self.out(output), hidden


def test_a_carried_state_is_no_data_and_is_told_of_when_it_breaks(mode):
    torch.manual_seed(0)
    model = Words()
    optimizer, guard = watched(model, mode, lr=0.5)
    hidden = torch.zeros(1, 8, 16)
    with pytest.warns(tamegrad.TamegradWarning, match="the state `hidden` that the loop carries"):
        for step in range(30):
            words = torch.randint(0, 50, (6, 8))
            hidden = hidden.detach()
            if step == 20:
                hidden.mul_(math.inf)
            scores, hidden = model(words[:-1], hidden)
            loss = F.cross_entropy(scores.flatten(0, 1), words[1:].flatten())
            learn(loss, optimizer, guard)
    assert (guard.diagnosis().onset, guard.diagnosis().cause) != (20, "data")


def test_a_module_that_is_called_on_different_inputs_is_no_recurrence():
    class Triplet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

        def forward(self, a, p, n):
            return self.encode(a), self.encode(p), self.encode(n)

    torch.manual_seed(0)
    model = Triplet()
    optimizer, guard = watched(model, kind=ADAM, lr=1e-3)
    learn(F.triplet_margin_loss(*model(*torch.randn(3, 16, 8))), optimizer)
    layers = guard._steps.passes.probes.layers
    assert [layer[0] for layer in layers if layer[0].startswith("encode.0")] == [
        "encode.0@0", "encode.0@1", "encode.0@2",
    ]  # fmt: skip
    assert not any(layer[4] for layer in layers)


def test_the_parts_that_a_loop_calls_by_themselves_are_seen():
    torch.manual_seed(0)
    root = nn.ModuleDict(
        {"body": nn.Sequential(nn.Linear(8, 16), nn.ReLU()), "head": nn.Linear(16, 3)}
    )
    optimizer, guard = watched(root, kind=ADAM, lr=1e-3)
    for step in range(30):
        x = torch.randn(16, 8) * (math.inf if step == 25 else 1.0)
        loss = F.cross_entropy(root["head"](root["body"](x)), torch.zeros(16).long())
        learn(loss, optimizer, guard)
    assert_data(guard)
    broken, rows = guard.diagnosis().to_dict()["causes"][0]["evidence"]
    assert (rows["quantity"], rows["value"]) == ("broken-rows", 16)
    assert broken["quantity"] == "first-nonfinite"
    assert broken["place"] == {"kind": "input", "name": "body.input"}, "what the body makes is none"
    assert [layer[0] for layer in guard._steps.passes.probes.layers] == ["body.0", "body.1", "head"]


def test_a_state_that_goes_from_call_to_call_within_a_step_is_not_carried(told):
    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.GRUCell(4, 8), nn.Linear(8, 4)

        def forward(self, x, h):
            h = self.cell(x, h)
            return self.out(h), h

    torch.manual_seed(0)
    model = Decoder()
    optimizer, guard = watched(model, kind=ADAM, lr=1e-3)
    for step in range(30):
        h = torch.zeros(8, 8)
        loss = 0.0
        for _ in range(4):
            x = torch.randn(8, 4) * (math.nan if step == 25 else 1.0)
            y, h = model(x, h)
            loss = loss + y.square().mean()
            h = h.detach()
        learn(loss, optimizer, guard)
    assert len(told()) == 1 and "carries" not in told()[0]
    assert guard.diagnosis().cause == "data"


@pytest.mark.parametrize("is_given", [False, True])
def test_what_a_model_is_given_of_its_own_within_a_step_is_no_data(is_given):
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    nn.init.eye_(model.weight)
    optimizer, guard = watched(model, lr=1e-6)
    for step in range(30):
        x = torch.randn(8, 4) * (1e3 if is_given and step == 25 else 1.0)
        loss = 0.0
        if step == 25 and not is_given:
            with torch.no_grad():
                model.weight.mul_(20.0)
        for _ in range(4):
            y = model(x)
            loss = loss + y.square().mean()
            x = y.detach()
        learn(loss, optimizer, guard)
    diagnosis = guard.diagnosis()
    assert diagnosis.onset == 25
    assert (diagnosis.cause == "data") == is_given


def test_a_model_whose_calls_cannot_be_seen_is_said_to_be_so():
    model = nn.Sequential(nn.Linear(4, 2))
    optimizer, guard = watched(model)
    notes = []
    for call in (lambda x: F.linear(x, model[0].weight, model[0].bias), model):
        call(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        notes.append("no call of the model was seen" in str(guard.diagnosis()))
    assert notes == [True, False]


def test_a_nested_tensor_is_left_alone():
    model = nn.Linear(4, 2)
    optimizer, guard = watched(model, trace_every=1, strict=False)
    for _ in range(3):
        nested = torch.nested.nested_tensor(
            [torch.ones(2, 4), torch.ones(3, 4)], layout=torch.jagged
        )
        model(nested).values().sum().backward()
        optimizer.step()
    assert (guard.step_number, guard.failure) == (3, None)


def test_no_hooks_pile_up_on_a_parameter_that_the_model_gives_out():
    class Prompt(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.prompt = nn.Parameter(torch.ones(4))

        def forward(self):
            return self.prompt

    model = Prompt()
    optimizer, _ = watched(model, trace_every=1)
    for _ in range(3):
        model().sum().backward()
        optimizer.step()
    assert not model.prompt._backward_hooks
