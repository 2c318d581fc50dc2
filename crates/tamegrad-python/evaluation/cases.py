"""Runs that fail and runs that are healthy, in torch: how well they are told apart, and saved.

A failing case is a healthy run with one fault planted at a known step, some of them in a known
layer. Observe shall alarm, not before the fault, and name the layer; protect shall end with most of
what the undisturbed twin learns. Healthy runs shall be left alone, to the bit.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import tamegrad

STEPS = 400
FAULT = 250


class Power(nn.Module):
    """Sign-preserving x^p, a layer that can be made superlinear while the run goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.power = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.power == 1.0 else x.sign() * (x.abs() + 1e-6) ** self.power * 3.0


def mlp(activation=nn.ReLU, depth: int = 8) -> nn.Module:
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Linear(48 if index else 16, 48), activation(), Power()]
        nn.init.kaiming_normal_(
            layers[-3].weight, nonlinearity="relu" if activation is nn.ReLU else "linear"
        )
        nn.init.zeros_(layers[-3].bias)
    return nn.Sequential(*layers, nn.Linear(48, 4))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(16, 48)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 48), nn.GELU(), Power())
                for _ in range(6)
            )
        )
        self.last = nn.Linear(48, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for index in range(4):
            parts += [nn.Conv1d(16 if index else 1, 16, 3, padding=1), nn.ReLU(), Power()]
        self.body, self.last = nn.Sequential(*parts), nn.Linear(256, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(x[:, None]).flatten(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.RNNCell(4, 32), nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.zeros(x.shape[0], 32)
        for part in x.view(x.shape[0], 4, 4).unbind(1):
            h = self.cell(part, h)
        return self.last(h)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp-relu": mlp,
    "mlp-tanh": lambda: mlp(nn.Tanh, 5),
    "residual": Residual,
    "conv": Conv,
    "rnn": Recurrent,
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-3),
}


@dataclass
class Fault:
    """What is planted. ``at`` changes model and optimizer before a step; gives inputs back."""

    name: str
    at: Callable
    layer: Callable[[nn.Module], str | None] = lambda model: None
    size: int = 32
    """Samples in a batch."""
    rate: float = 1.0
    """What the optimizer's learning rate is multiplied by."""
    scale: float | None = None
    """The first loss scale of a ``GradScaler``; without one the loss is not scaled."""
    relabelled: bool = False
    """Whether the classes change places at the step of the fault: another task."""


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Linear, nn.Conv1d)
    return [(name, m) for name, m in model.named_modules() if isinstance(m, kinds)]


def _middle(model: nn.Module) -> tuple[str, nn.Module]:
    layers = _layers(model)
    return layers[len(layers) // 2]


def _times(factor: float):
    """Multiplies the inputs of one batch."""
    return lambda step, model, optimizer, x: x * factor if step == FAULT else x


def _rates(factor: Callable[[int], float]):
    """Multiplies the learning rate by a factor for each step."""

    def at(step, model, optimizer, x):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("base", group["lr"]) * factor(step)
        return x

    return at


def _inf_batch(step, model, optimizer, x):
    return torch.where(torch.arange(x.shape[1]) == 0, math.inf, x) if step == FAULT else x


def _bad_layer(step, model, optimizer, x):
    if step == FAULT:
        with torch.no_grad():
            _middle(model)[1].weight.mul_(50.0)
    return x


def _growing_layer(step, model, optimizer, x):
    """An activation in the middle becomes superlinear."""
    if step == FAULT:
        powers = [m for m in model.modules() if isinstance(m, Power)]
        if powers:
            powers[len(powers) // 2].power = 4.0
    return x


def _middle_power(model: nn.Module) -> str | None:
    names = [name for name, m in model.named_modules() if isinstance(m, Power)]
    return names[len(names) // 2] if names else None


def _broken_output(step, model, optimizer, x):
    """A layer whose output is broken in this step, as by a bad kernel."""
    if step == FAULT:
        model.broken = _middle(model)[1].register_forward_hook(lambda m, a, out: out * math.inf)
    if step == FAULT + 1:
        model.broken.remove()
    return x


FAULTS = [
    Fault("bad-batch", _times(1e3)),
    Fault("inf-batch", _inf_batch),
    Fault("rate-jump", _rates(lambda step: 100.0 if step == FAULT else 1.0)),
    Fault("bad-layer", _bad_layer, lambda m: _middle(m)[0]),
    Fault("growing-layer", _growing_layer, _middle_power),
    Fault("broken-output", _broken_output, lambda m: _middle(m)[0]),
]


def _calm(step, model, optimizer, x):
    return x


def _restarts(step: int) -> float:
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * (step % 100) / 100))


def _sharp(step: int) -> float:
    return min(1.0, (step + 1) / 20) if step < 300 else 0.1


HEALTHY = [
    Fault("calm", _calm),
    Fault("warm-restarts", _rates(_restarts)),
    Fault("sharp-schedule", _rates(_sharp)),
    Fault("hard-batch", _times(3.0)),
    Fault("tiny-batch", _calm, size=4),
    Fault("edge-of-stability", _calm, size=512, rate=4.0),
    Fault("amp-skips", _calm, scale=2.0**127),
    Fault("change-of-task", _calm, relabelled=True),
]


def run(model_name, optimizer_name, fault: Fault, mode: str | None, seed: int, clip: bool = False):
    torch.manual_seed(seed)
    model = MODELS[model_name]()
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    for group in optimizer.param_groups:
        group["lr"] *= fault.rate
    generator = torch.Generator().manual_seed(1000 + seed)
    true = torch.randn(16, 4, generator=generator)
    scaler = None if fault.scale is None else torch.amp.GradScaler("cpu", init_scale=fault.scale)
    guard = None
    if mode is not None:
        guard = tamegrad.watch(model, optimizer, mode, scaler=scaler, strict=True)
    layer = fault.layer(model)

    def batch(count, step):
        x = torch.randn(count, 16, generator=generator)
        y = (x @ true).argmax(1)
        return x, (y + 1) % 4 if fault.relabelled and step >= FAULT else y

    held = batch(512, STEPS)

    def accuracy() -> float:
        with torch.no_grad():
            return float((model(held[0]).argmax(1) == held[1]).float().mean())

    start = accuracy()
    for step in range(STEPS):
        x, y = batch(fault.size, step)
        x = fault.at(step, model, optimizer, x)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        if guard is not None:
            guard.log(loss=loss)
        if clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
    return accuracy() - start, guard, layer, model


Start = tuple[str, str, int]
"""Model, optimizer and seed."""


def failing(start: Start) -> list[dict]:
    model, optimizer, seed = start
    rows = []
    twin = run(model, optimizer, HEALTHY[0], None, seed)[0]
    for fault in FAULTS:
        _, guard, layer, _ = run(model, optimizer, fault, "observe", seed)
        diagnosis = guard.diagnosis()
        saved = run(model, optimizer, fault, "protect", seed)[0]
        bare = run(model, optimizer, fault, None, seed)[0]
        clipped = run(model, optimizer, fault, None, seed, clip=True)[0]
        rows.append(
            {
                "model": model,
                "optimizer": optimizer,
                "fault": fault.name,
                "seed": seed,
                "harm": bare < 0.8 * twin,
                "onset": diagnosis.onset,
                "alarmed": diagnosis.onset is not None and FAULT <= diagnosis.onset,
                "early": diagnosis.onset is not None and diagnosis.onset < FAULT,
                "layer": layer,
                "origin": diagnosis.origin,
                "named": layer is None or (diagnosis.origin or "").split("@")[0] == layer,
                "twin": twin,
                "bare": bare,
                "protected": saved,
                "saved": saved >= 0.8 * twin,
                "clip_saved": clipped >= 0.8 * twin,
            }
        )
    return rows


def healthy(start: Start) -> list[dict]:
    model, optimizer, seed = start
    rows = []
    for case in HEALTHY:
        _, guard, _, watched = run(model, optimizer, case, "protect", seed)
        learned, _, _, bare = run(model, optimizer, case, None, seed)
        same = all(
            torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True)
        )
        alarms = {f"{f.sign}@{f.step}" for f in guard.findings() if f.severity == "alarm"}
        rows.append(
            {
                "model": model,
                "optimizer": optimizer,
                "case": case.name,
                "seed": seed,
                "alarm": guard.diagnosis().onset is not None,
                "signs": sorted(alarms),
                "actions": len(guard.actions()),
                "learned": learned,
                "same": same,
            }
        )
    return rows


def both(start: Start) -> tuple[list[dict], list[dict]]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    return healthy(start), failing(start)


def share(rows: list[dict], key: str) -> float:
    return sum(bool(row[key]) for row in rows) / max(len(rows), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", action="store_true", help="print every run")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at once")
    given = parser.parse_args()
    starts = itertools.product(MODELS, OPTIMIZERS, range(given.seeds))
    # Threads of torch do not live through a fork.
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(given.jobs) as pool:
        parts = pool.map(both, starts, chunksize=1)
    calm = [row for part, _ in parts for row in part]
    rows = [row for _, part in parts for row in part]
    if given.rows:
        for row in calm + rows:
            print(json.dumps(row))
    harmed = [row for row in rows if row["harm"]]
    placed = [row for row in harmed if row["layer"] is not None]
    for name, part in [
        ("all", rows),
        *((f.name, [r for r in rows if r["fault"] == f.name]) for f in FAULTS),
    ]:
        part_harmed = [row for row in part if row["harm"]]
        print(
            f"{name:14} {len(part):4} runs  alarmed {share(part, 'alarmed'):.2f}  early "
            f"{share(part, 'early'):.2f}  harmed {len(part_harmed)}  saved {share(part_harmed, 'saved'):.2f}"
            f"  clip saves {share(part_harmed, 'clip_saved'):.2f}"
        )
    print(
        f"alarmed of the harmed {share(harmed, 'alarmed'):.2f}; layer named {share(placed, 'named'):.2f} of {len(placed)}"
    )
    print(
        f"healthy {len(calm)} runs: alarms {share(calm, 'alarm'):.3f}, acted on "
        f"{sum(row['actions'] > 0 for row in calm)}, same bits {share(calm, 'same'):.3f}"
    )


if __name__ == "__main__":
    main()
