"""Loss scales, and gradients that somebody has divided or clipped before the step."""

from __future__ import annotations

import re

import pytest
import torch
from conftest import alarms, batches, loss_of, state_bits, watched
from torch import nn

import tamegrad

STEPS = 70
CEILING = 0.2
"""A norm that the gradients of these runs reach at most steps."""


class Half(nn.Module):
    """Lets the gradient through as float16 numbers: a scale that is too large makes it Inf."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.half().float()


def net(inputs: int = 16, outputs: int = 4, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, 32), nn.Tanh(), Half(), nn.Linear(32, outputs))


def overflowing() -> torch.amp.GradScaler:
    """A scaler that tries a scale which is far too large at steps 30 and 61."""
    return torch.amp.GradScaler(
        "cpu",
        init_scale=2.0**10,
        growth_factor=2.0**18,
        backoff_factor=2.0**-18,
        growth_interval=30,
    )


SCALERS = {
    "calm": lambda: torch.amp.GradScaler("cpu", init_scale=2.0**12),
    "overflowing": overflowing,
    "disabled": lambda: torch.amp.GradScaler("cpu", enabled=False),
}


def parameters(model: nn.Module) -> torch.Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def assert_alike(got, expected):
    """Compares the runs' losses and parameters, whose norms were summed up in another order."""
    assert got[0] == pytest.approx(expected[0], rel=1e-4)
    assert torch.allclose(got[1], expected[1], rtol=1e-3, atol=1e-4)


def assert_calm(guard):
    assert (alarms(guard), guard.actions()) == ([], [])


def run(scaler, clip, mode=None, model=None, optimizer=None, given=False, seed=1):
    """Trains with a scaler, which the guard is not told of unless ``given``; ``clip(guard, scaler,
    optimizer, model)`` clips. Gives losses, parameters, guard and optimizer."""
    model = model if model is not None else net()
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"scaler": scaler} if given else {}
    guard = tamegrad.watch(model, optimizer, mode, strict=True, **options) if mode else None
    losses, skipped = [], []
    for step, (x, y) in enumerate(batches(STEPS, seed)):
        loss = loss_of(model, x, y)
        optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        clip(guard, scaler, optimizer, model)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            before = scaler.get_scale()
            scaler.update()
            if scaler.get_scale() < before:
                skipped.append(step)
        if guard is not None:
            guard.log(loss=loss)
        losses.append(loss.item())
    if scaler is not None and scaler.is_enabled():
        assert skipped == ([30, 61] if scaler.get_growth_interval() == 30 else [])
    return losses, parameters(model), guard, optimizer


def by_torch(guard, scaler, optimizer, model):
    if scaler is not None:
        scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), CEILING)


def by_guard(guard, scaler, optimizer, model):
    guard.clip_(CEILING)


def unscaled_by_user(guard, scaler, optimizer, model):
    scaler.unscale_(optimizer)
    guard.clip_(CEILING)


def twice(guard, scaler, optimizer, model):
    guard.clip_(10.0 * CEILING)
    guard.clip_(CEILING)


def nothing(guard, scaler, optimizer, model):
    pass


def by_value(guard, scaler, optimizer, model):
    guard.clip_value_(0.01)


def by_value_of_torch(guard, scaler, optimizer, model):
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_value_(model.parameters(), 0.01)


def by_unit(guard, scaler, optimizer, model):
    guard.clip_units_(0.02)


@pytest.mark.parametrize("given", [False, True], ids=["not-given", "given"])
@pytest.mark.parametrize(
    ("scaler", "clip", "of_torch"),
    [
        *((s, c, by_torch) for s in SCALERS for c in (by_guard, unscaled_by_user, twice)),
        ("overflowing", by_value, by_value_of_torch),
    ],
)
def test_a_clip_works_on_gradients_without_their_scale(scaler, clip, of_torch, given, mode):
    expected = run(SCALERS[scaler](), of_torch)
    got = run(SCALERS[scaler](), clip, mode, given=given)
    assert_alike(got, expected)
    assert_calm(got[2])


@pytest.mark.parametrize("scaler", SCALERS)
def test_a_scaler_that_is_not_given_changes_nothing_where_nobody_clips(scaler, mode):
    expected, got = (run(SCALERS[scaler](), nothing, m) for m in (None, mode))
    assert got[0] == expected[0]
    assert torch.equal(got[1], expected[1])
    assert_calm(got[2])


def test_units_are_clipped_without_their_scale(mode):
    expected = run(SCALERS["disabled"](), by_unit, mode)
    unclipped = run(SCALERS["disabled"](), nothing)
    assert not torch.allclose(expected[1], unclipped[1], atol=1e-3), "the clip is felt"
    got = run(SCALERS["calm"](), by_unit, mode)
    assert_alike(got, expected)


@pytest.mark.parametrize("is_same", [False, True], ids=["another-run", "same-optimizer"])
def test_a_scaler_that_this_loop_does_not_use_is_not_applied(is_same, mode):
    scaler = SCALERS["calm"]()

    def start(mode):
        model = net()
        *_, optimizer = run(scaler, by_torch, model=model)
        clip = by_guard if mode else by_torch
        if not is_same:
            return run(None, clip, mode)
        return run(None, clip, mode, model=model, optimizer=optimizer, seed=2)

    expected, got = start(None), start(mode)
    assert scaler.get_scale() == 2.0**12
    assert_alike(got, expected)
    assert_calm(got[2])


def critic_and_generator(mode: str | None, scalers: int, make) -> tuple[list, torch.Tensor, list]:
    """Two networks that train against each other, under one scaler or two."""
    critic, generator = net(2, 1, seed=0), net(3, 2, seed=1)
    critic_step = torch.optim.SGD(critic.parameters(), lr=0.05)
    generator_step = torch.optim.SGD(generator.parameters(), lr=0.05)
    first = make()
    second = make() if scalers == 2 else first
    pairs = [(critic, critic_step, first), (generator, generator_step, second)]
    guards = [tamegrad.watch(m, o, mode, strict=True) for m, o, _ in pairs] if mode else None
    chance = torch.Generator().manual_seed(3)
    softplus, losses = nn.functional.softplus, []

    def step(place: int, loss: torch.Tensor) -> None:
        model, optimizer, scaler = pairs[place]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if guards:
            guards[place].clip_(0.1, loss=loss)
        else:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        scaler.step(optimizer)
        losses.append(loss.item())

    for _ in range(STEPS):
        real = torch.randn(16, 2, generator=chance) + 1.0
        fake = generator(torch.randn(16, 3, generator=chance))
        step(0, softplus(-critic(real)).mean() + softplus(critic(fake.detach())).mean())
        step(1, softplus(-critic(fake)).mean())
        for scaler in {first, second}:
            scaler.update()
    return losses, torch.cat([parameters(critic), parameters(generator)]), guards


@pytest.mark.parametrize("scalers", [1, 2])
@pytest.mark.parametrize("make", [SCALERS["calm"], overflowing], ids=["calm", "overflowing"])
def test_two_optimizers_with_one_scaler_or_two(make, scalers, mode):
    expected = critic_and_generator(None, scalers, make)
    got = critic_and_generator(mode, scalers, make)
    assert_alike(got, expected)
    for guard in got[2]:
        assert guard.step_number > STEPS - 4
        assert_calm(guard)


@pytest.mark.parametrize("make", [SCALERS["calm"], overflowing], ids=["calm", "overflowing"])
def test_one_guard_and_one_scaler_on_two_optimizers_of_one_loss(make, mode):
    def start(mode):
        model, scaler, losses = net(), make(), []
        optimizers = [torch.optim.SGD(model[i].parameters(), lr=0.1) for i in (0, 3)]
        guard = tamegrad.watch(model, optimizers, mode, strict=True) if mode else None
        for x, y in batches(STEPS):
            loss = loss_of(model, x, y)
            model.zero_grad()
            scaler.scale(loss).backward()
            if guard:
                guard.clip_(CEILING, loss=loss)
            else:
                for optimizer in optimizers:
                    scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), CEILING)
            for optimizer in optimizers:
                scaler.step(optimizer)
            scaler.update()
            losses.append(loss.item())
        return losses, parameters(model), guard

    got = start(mode)
    assert_calm(got[2])
    # Torch's own clip makes NaN of the layers that did not overflow.
    compared = 31 if make is overflowing else STEPS
    assert got[0][:compared] == pytest.approx(start(None)[0][:compared], rel=1e-4)
    assert torch.isfinite(got[1]).all()
    assert got[0][-1] < 0.8 * got[0][0]


def divided(mode, loss_factor, gradient_factor, from_step=0):
    """Trains with losses multiplied and gradients multiplied by hand; gives the guard and how far
    the norm that it read was from that of the step."""
    model = net()[:2].append(nn.Linear(32, 4))
    optimizer, guard = watched(model, mode, lr=0.05)
    errors = []
    for step, (x, y) in enumerate(batches(130)):
        loss = loss_of(model, x, y)
        optimizer.zero_grad()
        at_work = step >= from_step
        (loss * (loss_factor if at_work else 1.0)).backward()
        if at_work:
            for parameter in model.parameters():
                parameter.grad *= gradient_factor
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        if guard is not None:
            guard.log(loss=loss)
        optimizer.step()
        if guard is not None:
            errors.append(abs(guard.gradient_norm / norm.item() - 1.0))
    return state_bits(model, optimizer), guard, errors


@pytest.mark.parametrize("from_step", [0, 120])
@pytest.mark.parametrize("factor", [2.0**16, 2.0**-4])
def test_gradients_are_judged_as_they_are_at_the_step(factor, from_step, mode):
    bits, guard, errors = divided(mode, factor, 1.0 / factor, from_step)
    assert max(errors) < 1e-5
    assert_calm(guard)
    assert bits == divided(None, factor, 1.0 / factor, from_step)[0]


def test_gradients_that_were_multiplied_after_the_backward_pass_are_a_spike():
    _, guard, _ = divided("observe", 1.0, 1e4, from_step=129)
    assert guard.diagnosis().onset == 129


def test_a_healthy_run_that_torch_clips_is_told_of_in_the_diagnosis_alone(mode, told):
    losses, _, guard, _ = run(None, by_torch, mode)
    assert told() == []
    assert_calm(guard)
    assert losses[-1] < 0.8 * losses[0]
    assert re.search(rf"clipped.*\b{CEILING}\b", str(guard.diagnosis())), str(guard.diagnosis())


def test_a_scaler_that_the_loop_has_stopped_to_use_is_not_applied(mode):
    model, scaler = net(), torch.amp.GradScaler("cpu")
    optimizer, guard = watched(model, mode, lr=0.1)
    for step, (x, y) in enumerate(batches(20)):
        loss = loss_of(model, x, y)
        optimizer.zero_grad()
        scales = step < 10
        (scaler.scale(loss) if scales else loss).backward()
        found = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        true = found / scaler.get_scale() if scales else found
        assert float(guard.clip_(100.0)) == pytest.approx(float(true), rel=1e-5)
        scaler.step(optimizer) if scales else optimizer.step()
        if scales:
            scaler.update()
    assert_calm(guard)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("broken", ["loss", "gradients"])
def test_what_no_scale_mends_is_no_harmless_overflow(broken, given, clips, fused, mode):
    """A scaler leaves out each of the steps, so that nothing reaches the parameters."""
    fault, halvings = 20, 3
    model, scaler = net(), torch.amp.GradScaler("cpu", init_scale=2.0**halvings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    guard = tamegrad.watch(model, optimizer, mode, strict=True, scaler=scaler if given else None)
    for step, (x, y) in enumerate(batches(2 * fault)):
        logits = model(x)
        loss = nn.functional.cross_entropy(logits, y)
        if step >= fault and broken == "loss":
            loss = loss + logits.sum() * float("nan")
        elif step >= fault:
            # 0 itself is finite, its slope times 0 is not.
            loss = loss + 0.0 * (0.0 * logits).norm(dim=1).pow(0.5).sum()
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if clips:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        guard.log(loss=loss.item())
    diagnosis = guard.diagnosis()
    assert (diagnosis.verdict, diagnosis.onset) == ("exploded", fault)
    if mode == "observe":
        # While the scale was above 1 it might have been too large: such steps do not count.
        assert guard.step_number == 2 * fault - (halvings if broken == "gradients" else 0)
    assert all(p.isfinite().all() for p in model.parameters())


class OwnScale(torch.amp.GradScaler):
    """Scales by a method of its own, as FSDP's does."""

    def scale(self, outputs):
        if self._scale is None:
            self._lazy_init_scale_growth_tracker(outputs.device)
        return outputs * self._scale


@pytest.mark.parametrize("fused", [False, True])
def test_an_overflow_of_a_scaler_of_ones_own_is_no_alarm(fused, mode):
    model, scaler = net(), OwnScale("cpu", init_scale=2.0**40)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    guard = tamegrad.watch(model, optimizer, mode, strict=True)
    for x, y in batches(40):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, x, y)).backward()
        scaler.step(optimizer)
        scaler.update()
    assert 2.0 < scaler.get_scale() < 2.0**40
    assert_calm(guard)
