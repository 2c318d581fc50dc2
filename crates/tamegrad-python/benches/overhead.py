"""What watching costs: process time of training steps, in turns with the bare step.

Prints one line of JSON a model. Every ratio is to the bare step of the same round, and the median of
the rounds is given; ``control`` is a second bare run, which shows the noise.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable

os.environ.setdefault("RAYON_NUM_THREADS", "1")

import rivals  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

import tamegrad  # noqa: E402


class Block(nn.Module):
    """Attention and feed-forward, each with a skip connection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.act, self.down = (
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
        return x + self.down(self.act(self.up(self.norm2(x))))


class Gpt(nn.Module):
    """A small GPT."""

    def __init__(self, layers: int, width: int, tokens: int, vocabulary: int = 256) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.token(x) + self.place.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(h)))


def mlp_30x256():
    layers: list[nn.Module] = []
    for _ in range(30):
        layers += [nn.Linear(256, 256), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(256, 10))
    x, y = torch.randn(64, 256), torch.randint(0, 10, (64,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def mlp_3x32(loss_of=nn.functional.cross_entropy):
    model = nn.Sequential(
        nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    x, y = torch.randn(64, 32), torch.randint(0, 10, (64,))
    return model, lambda: loss_of(model(x), y)


def own_cross_entropy(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """With a logarithm of its own, whose operands the guard keeps until the end of the step."""
    chosen = scores.softmax(1).gather(1, labels[:, None])
    return -chosen.log().mean()


def gpt_6x256():
    model = Gpt(6, 256, 128)
    x = torch.randint(0, 256, (8, 129))

    def loss():
        logits = model(x[:, :-1])
        return nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())

    return model, loss


def small_10000():
    model = nn.ParameterList([nn.Parameter(torch.randn(16)) for _ in range(10_000)])
    return model, lambda: torch.stack(list(model)).square().sum()


MODELS = {
    "mlp-30x256": mlp_30x256,
    "gpt-6x256": gpt_6x256,
    "small-10000": small_10000,
    "mlp-3x32": mlp_3x32,
    "mlp-3x32-log": functools.partial(mlp_3x32, own_cross_entropy),
}
STEPS = {"mlp-30x256": 50, "gpt-6x256": 3, "small-10000": 20}
"""Steps of a round; 500 of a model that is not listed."""


def watched(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, clips: bool, mode: str = "observe"
) -> rivals.Step:
    guard = tamegrad.watch(model, optimizer, mode, strict=True)

    def step(loss_of) -> None:
        loss = rivals.backward(optimizer, loss_of)
        if clips:
            guard.clip_(1.0)
        optimizer.step()
        guard.log(loss=loss)

    return step


def bare(model: nn.Module, optimizer: torch.optim.Optimizer) -> rivals.Step:
    def step(loss_of) -> None:
        rivals.backward(optimizer, loss_of)
        optimizer.step()

    return step


CLIP = "torch clip_grad_norm_"
OURS = {
    "bare": bare,
    "control": bare,
    "tamegrad observe": functools.partial(watched, clips=False),
    "tamegrad protect": functools.partial(watched, clips=False, mode="protect"),
    "tamegrad clip_": functools.partial(watched, clips=True),
    CLIP: rivals.RIVALS[CLIP],
}
WARM_UP = 130
"""Steps of ours before they are measured: up to the 128th the guard looks at every update, later at
every eighth."""
WARM_UP_OTHERS = 5


def variant(make, around) -> Callable[[], float]:
    """A function that takes one training step and gives its process time in seconds."""
    torch.manual_seed(0)
    model, loss_of = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    step = around(model, optimizer)

    def timed() -> float:
        start = time.process_time()
        step(loss_of)
        return time.process_time() - start

    return timed


def measure(name: str, rounds: int, steps: int, wanted: dict) -> dict:
    """Medians over rounds of ``steps`` steps of each kind, after a warm-up."""
    variants, absent = {}, {}
    for kind, around in wanted.items():
        try:
            variants[kind] = variant(MODELS[name], around)
        except ImportError as error:
            absent[kind] = str(error)
    for kind, step in variants.items():
        for _ in range(WARM_UP if kind.startswith("tamegrad") else WARM_UP_OTHERS):
            step()
    times: list[dict[str, float]] = []
    for round_index in range(rounds):
        order = list(variants) if round_index % 2 == 0 else list(variants)[::-1]
        sums = dict.fromkeys(order, 0.0)
        for _ in range(steps):
            for kind in order:
                sums[kind] += variants[kind]()
        times.append({kind: seconds / steps for kind, seconds in sums.items()})

    def median(of) -> float:
        return statistics.median(of(row) for row in times)

    def added(kind: str) -> float:
        return median(lambda row: row[kind] - row["bare"])

    count = sum(1 for _ in MODELS[name]()[0].parameters())
    return {
        "model": name,
        "parameters": count,
        "step_ms": 1e3 * median(lambda row: row["bare"]),
        "ratios": {
            kind: round(median(lambda row, kind=kind: row[kind] / row["bare"]), 4)
            for kind in variants
            if kind != "bare"
        },
        "clip_cost": added("tamegrad clip_") / added(CLIP),
        "observe_ms": 1e3 * added("tamegrad observe"),
        "observe_us_per_parameter": 1e6 * added("tamegrad observe") / count,
        "absent": absent,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("models", nargs="*", default=list(MODELS))
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--rivals", action="store_true", help="other tools as well")
    given = arguments.parse_args()
    if len(given.models) > 1:
        # A process each: what one tool leaves behind in it (a run of wandb) another would find.
        for name in given.models:
            options = ["--rounds", str(given.rounds), *(["--rivals"] if given.rivals else [])]
            subprocess.run([sys.executable, __file__, name, *options], check=True)
        return
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.models:
        steps = STEPS.get(name, 500)
        # Ten thousand parameters stand for a list's cost: most tools have no module there to hook.
        others = rivals.RIVALS if given.rivals and name in ("mlp-30x256", "gpt-6x256") else {}
        print(json.dumps(measure(name, given.rounds, steps, {**OURS, **others})), flush=True)


if __name__ == "__main__":
    main()
