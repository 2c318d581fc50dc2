"""A small GPT on text made here, whose learning rate jumps at one step.

    python examples/gpt_rate_jump.py

The jump does its harm within one step, so nothing that looks at the loss can help. In protect mode
the update is measured, made anew from smaller gradients or refused, before the next batch comes.
"""

from __future__ import annotations

import warnings

import torch
from torch import nn

import tamegrad

STEPS, JUMP = 260, 160
WIDTH, TOKENS, VOCABULARY = 64, 32, 32


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 4, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.token(x) + self.place.weight[: x.shape[1]]
        return self.head(self.norm(self.blocks(h)))


def text(count: int, generator: torch.Generator) -> torch.Tensor:
    """Sequences in which each token is the sum of the two before it, now and then a random one."""
    rows = torch.randint(VOCABULARY, (count, TOKENS + 1), generator=generator)
    keep = torch.rand(rows.shape, generator=generator) < 0.05
    for index in range(2, TOKENS + 1):
        following = (rows[:, index - 1] + rows[:, index - 2]) % VOCABULARY
        rows[:, index] = torch.where(keep[:, index], rows[:, index], following)
    return rows


def loss_of(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    logits = model(rows[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def train(mode: str, jumps: bool) -> tuple[float, tamegrad.Guard]:
    """Held-out loss at the end, and the guard."""
    torch.manual_seed(0)
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    guard = tamegrad.watch(model, optimizer, mode, total_steps=STEPS)
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.6 if jumps and step == JUMP else 2e-3
        loss = loss_of(model, text(16, generator))
        optimizer.zero_grad()
        loss.backward()
        guard.clip_(max_norm=1.0, loss=loss)
        optimizer.step()
    with torch.no_grad():
        return float(loss_of(model, text(64, generator))), guard


def main() -> None:
    warnings.simplefilter("ignore", tamegrad.TamegradWarning)
    calm, _ = train("observe", jumps=False)
    observed, guard = train("observe", jumps=True)
    print(guard.diagnosis())
    protected, _ = train("protect", jumps=True)
    print(
        f"held-out loss: {calm:.3f} without the jump, {observed:.3f} with it, {protected:.3f} protected"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
