"""Recurrences whose time steps are not the layers of the first pass."""

import pytest
import torch
from torch import nn

import tamegrad


class Rollout(nn.Module):
    """A state that goes through the same layer again and again."""

    def __init__(self):
        super().__init__()
        self.cell = nn.Linear(4, 4, bias=False)

    def forward(self, state, steps):
        for _ in range(steps):
            state = self.cell(state)
        return state


def grown(model, factor):
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(factor * torch.linalg.qr(torch.randn(4, 4))[0])
    return model


def diagnosis_of(model, forward, steps=60):
    """Of a run whose target jumps, so that there is an alarm."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-7)
    guard = tamegrad.watch(model, optimizer, strict=True)
    for step in range(steps):
        loss = (forward(step) - (0.0 if step < steps - 1 else 1e6)).square().mean()
        optimizer.zero_grad()
        guard.log(loss=loss)
        loss.backward()
        optimizer.step()
    return guard.diagnosis()


def product_of(diagnosis):
    causes = [cause for cause in diagnosis.to_dict()["causes"] if cause["name"] == "recurrence"]
    measures = [measure for cause in causes for measure in cause["evidence"]]
    return [m for m in measures if m["quantity"] == "time-step-product"]


@pytest.mark.parametrize("longer", [True, False])
def test_a_pass_that_has_more_time_steps_than_the_first(longer):
    torch.manual_seed(0)
    model, x = grown(Rollout(), 1.5), torch.randn(8, 4)
    found = product_of(
        diagnosis_of(model, lambda step: model(x, 30 if longer and step >= 30 else 1))
    )
    assert bool(found) == longer
    if longer:
        assert found[0]["over"] == 30
        assert found[0]["value"] == pytest.approx(1.5**29 / 30, rel=1e-3)


@pytest.mark.parametrize("count", [10, 40])
def test_a_model_that_the_loop_calls_with_what_it_has_made(count):
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 1.5), torch.randn(8, 4)

    def forward(_):
        state = x
        for _ in range(count):
            state = model(state)
        return state

    found = product_of(diagnosis_of(model, forward))
    if count == 10:
        # 1.5^9 / 10 is below the limit.
        assert not found
    else:
        assert found[0]["over"] == count
        assert found[0]["value"] == pytest.approx(1.5 ** (count - 1) / count, rel=1e-3)


def test_calls_that_are_given_nothing_of_each_other():
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 1.0), torch.randn(40, 8, 4)
    weights = 1.5 ** torch.arange(40, 0, -1)
    forward = lambda _: sum(w * model(part) for w, part in zip(weights, x, strict=True))  # noqa: E731
    assert not product_of(diagnosis_of(model, forward))


class Recurrent(nn.Module):
    """What a loop calls in turn: an encoder of each input, a cell and a head."""

    def __init__(self):
        super().__init__()
        self.encoder, self.cell, self.head = (nn.Linear(4, 4, bias=False) for _ in range(3))


@pytest.mark.parametrize("parts", ["head", "heads", "encoder", "all"])
@pytest.mark.parametrize("count", [12, 16, 17, 20])
def test_other_modules_between_the_calls_of_a_cell(parts, count):
    torch.manual_seed(0)
    model, x = grown(Recurrent(), 1.0), torch.randn(8, 4)
    grown(model.cell, 2.0)

    def forward(step):
        state = model.encoder(x) if parts in ("encoder", "all") else x
        heads = []
        for _ in range(count if step == 59 else 3):
            given = model.encoder(x) if parts == "all" else 0.0
            state = model.cell(state) + given
            if parts in ("heads", "all"):
                heads.append(model.head(state))
        return model.head(state) if parts == "head" else (heads[-1] if heads else state)

    found = product_of(diagnosis_of(model, forward))
    assert found[0]["over"] == count
    assert found[0]["value"] == pytest.approx(2.0 ** (count - 1) / count, rel=1e-2)


def test_two_rollouts_are_not_one_of_twice_the_length():
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 1.0), torch.randn(8, 4)

    def forward(_):
        ends = []
        for _ in range(2):
            state = x
            for _ in range(20):
                state = model(state)
            ends.append(state)
        # The first weighs far more, which no gain over time has made.
        return 1e6 * ends[0] + ends[1]

    assert not product_of(diagnosis_of(model, forward))


@pytest.mark.parametrize("count", [10, 30])
def test_batches_that_are_tied_by_nothing_are_no_recurrence(count):
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 1.0), torch.randn(count, 8, 4)

    def forward(_):
        tied, total = 0.0, 0.0
        for place, part in enumerate(x):
            out = model(part + 0.0 * tied)
            tied = out.mean()
            total = total + out * (2e3 if place == 0 else 1.0)
        return total

    assert not product_of(diagnosis_of(model, forward))


@pytest.mark.parametrize("within", [True, False])
def test_a_model_on_top_of_itself_is_no_recurrence(within):
    torch.manual_seed(0)
    model, x = grown(Rollout() if within else nn.Linear(4, 4, bias=False), 200.0), torch.randn(8, 4)

    def forward(step):
        if within:
            return model(x, 2 if step == 59 else 1)
        return model(model(x))

    assert not product_of(diagnosis_of(model, forward))


@pytest.mark.parametrize("kind", [nn.RNN, nn.RNNCell, nn.Linear])
def test_a_matrix_of_many_time_steps_shows_no_growth_of_an_activation(kind):
    torch.manual_seed(0)
    cell = kind(4, 4)
    model, given = nn.Sequential(cell, nn.Linear(4, 1)), []
    guard = tamegrad.watch(model, torch.optim.SGD(model.parameters(), 1e-3), strict=True)
    guard._steps.passes.calls.clear()
    given = guard._steps.passes.used_repeatedly()
    assert given == ({id(p) for p in cell.parameters()} if kind is not nn.Linear else set())


def test_two_rollouts_from_one_call_are_as_long_as_one_of_them():
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 2.0), torch.randn(8, 4)

    def forward(_):
        begin, ends = model(x), []
        for _ in range(2):
            state = begin
            for _ in range(20):
                state = model(state)
            ends.append(state)
        return ends[0] + ends[1]

    assert product_of(diagnosis_of(model, forward))[0]["over"] == 21


def test_a_rollout_after_which_the_model_sees_other_data():
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 2.0), torch.randn(8, 4)

    def forward(_):
        state = x
        for _ in range(14):
            state = model(state)
        return state + model(x)

    assert product_of(diagnosis_of(model, forward))[0]["over"] == 14


def test_the_pass_whose_update_raises_the_alarm_is_the_one_that_is_measured():
    torch.manual_seed(0)
    model, x = grown(nn.Linear(4, 4, bias=False), 1.5), torch.randn(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    guard = tamegrad.watch(model, optimizer, strict=True)
    for step in range(60):
        state = x
        for _ in range(20):
            state = model(state)
        optimizer.zero_grad()
        state.square().mean().backward()
        # The update alone is far too large: the pass is as those before.
        optimizer.param_groups[0]["lr"] = 1e3 if step == 50 else 1e-9
        optimizer.step()
        if guard.findings():
            break
    assert guard.findings()[0].step == step == 50
    found = guard._steps.after_alarm.inspection.time_steps
    assert found is not None and found.calls == 20


def test_a_matrix_that_a_model_comes_to_use_again_and_again_shows_no_growth_of_an_activation():
    class Deeper(Rollout):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 4, bias=False)

        def forward(self, state, steps):
            return self.head(super().forward(state, steps))

    torch.manual_seed(0)
    model, x = grown(Deeper(), 1.2), torch.randn(8, 4)
    found = []
    elasticities = tamegrad._steps.Steps._elasticities

    def kept(steps, loss):
        found.append(elasticities(steps, loss))
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tamegrad._steps.Steps, "_elasticities", kept)
        diagnosis = diagnosis_of(model, lambda step: model(x, 1 if step < 59 else 12))
    # In the first pass each is used once; in that of the alarm one of the two is used twelve times.
    assert [[of is not None for of in pair] for pair in found] == [[True, True], [False, True]]
    assert "activation" not in [cause["name"] for cause in diagnosis.to_dict()["causes"]]
