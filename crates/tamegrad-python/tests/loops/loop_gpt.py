"""A character-level GPT as nanoGPT trains it: micro-batches, a cosine schedule, a scaler, a clip."""

from __future__ import annotations

import contextlib
import math

import torch
from loops_kit import markov_text, outcome, watch
from torch import nn
from torch.nn import functional as F

VOCABULARY, BLOCK, EMBED, HEADS, LAYERS = 27, 16, 32, 2, 2
STEPS, MICRO_BATCHES, BATCH = 70, 4, 8


class CausalSelfAttention(nn.Module):
    """Attention to what was before."""

    def __init__(self):
        super().__init__()
        self.c_attn = nn.Linear(EMBED, 3 * EMBED, bias=False)
        self.c_proj = nn.Linear(EMBED, EMBED, bias=False)

    def forward(self, x):
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(EMBED, dim=2)
        q, k, v = (t.view(B, T, HEADS, C // HEADS).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))


class Block(nn.Module):
    """Attention and a perceptron, each beside a way past it."""

    def __init__(self):
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(EMBED), CausalSelfAttention()
        self.ln_2 = nn.LayerNorm(EMBED)
        self.c_fc, self.c_proj = nn.Linear(EMBED, 4 * EMBED), nn.Linear(4 * EMBED, EMBED)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class GPT(nn.Module):
    """A small GPT whose embedding and output share their weights."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(VOCABULARY, EMBED),
                "wpe": nn.Embedding(BLOCK, EMBED),
                "drop": nn.Dropout(0.1),
                "h": nn.ModuleList([Block() for _ in range(LAYERS)]),
                "ln_f": nn.LayerNorm(EMBED),
            }
        )
        self.lm_head = nn.Linear(EMBED, VOCABULARY, bias=False)
        self.transformer.wte.weight = self.lm_head.weight
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                std = 0.02 / math.sqrt(2 * LAYERS) if name.endswith("c_proj.weight") else 0.02
                nn.init.normal_(p, mean=0.0, std=std)

    def forward(self, idx, targets=None):
        pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
        x = self.transformer.drop(self.transformer.wte(idx) + self.transformer.wpe(pos))
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.ln_f(x))
        loss = F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))
        return logits, loss

    def configure_optimizers(self, weight_decay, learning_rate, betas):
        """AdamW that decays matrices alone."""
        decay_params = [p for p in self.parameters() if p.dim() >= 2]
        nodecay_params = [p for p in self.parameters() if p.dim() < 2]
        groups = [
            {"params": decay_params, "weight_decay": weight_decay},
            {"params": nodecay_params, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas)


def get_lr(it, learning_rate=5e-3, warmup_iters=10, lr_decay_iters=STEPS, min_lr=5e-4):
    """Linear warm-up, then a cosine down to the smallest rate."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    return min_lr + 0.5 * (1.0 + math.cos(math.pi * decay_ratio)) * (learning_rate - min_lr)


def run(mode, factor, since=0, dtype="float32", scales=False, clips="torch"):
    """Some steps of four micro-batches each; ``clips`` says who clips the gradient."""
    torch.manual_seed(1337)
    data = markov_text(4000, VOCABULARY)
    is_half = dtype == "bfloat16"
    ctx = torch.amp.autocast("cpu", torch.bfloat16) if is_half else contextlib.nullcontext()
    scaler = torch.amp.GradScaler("cpu", enabled=False) if scales else None
    model = GPT()
    optimizer = model.configure_optimizers(0.1, 5e-3, (0.9, 0.95))
    guard = watch(mode, model, optimizer, scaler=scaler)

    def get_batch():
        ix = torch.randint(len(data) - BLOCK, (BATCH,))
        x = torch.stack([data[i : i + BLOCK] for i in ix])
        y = torch.stack([data[i + 1 : i + 1 + BLOCK] for i in ix])
        return x, y

    losses = []
    x, y = get_batch()
    for it in range(STEPS):
        lr = get_lr(it) * (factor if it >= since else 1.0)
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        total = 0.0
        for _ in range(MICRO_BATCHES):
            with ctx:
                _, loss = model(x, y)
                loss = loss / MICRO_BATCHES
            x, y = get_batch()
            (scaler.scale(loss) if scales else loss).backward()
            if guard is not None and clips == "torch":
                guard.log(loss=loss)
            total += loss.item()
        if scales:
            scaler.unscale_(optimizer)
        if guard is not None and clips == "guard":
            guard.clip_(1.0, loss=total)
        else:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        if scales:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total)
    return outcome({"model": model}, {"optimizer": optimizer}, losses, [guard])
