"""A loop of Accelerate: all is prepared, and the guard gets what was prepared."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from loops_kit import images, outcome, raise_rate, watch
from torch import nn


def run(mode, factor, since=0):
    """Three epochs; two batches to a step of the optimizer."""
    torch.manual_seed(1)
    x, y = images(1280, 8, noise=2.0)
    plugin = GradientAccumulationPlugin(num_steps=2, sync_with_dataloader=True)
    accelerator = Accelerator(cpu=True, gradient_accumulation_plugin=plugin)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 4)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    data = torch.utils.data.TensorDataset(x, y)
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 120)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    guard = watch(mode, model, optimizer)
    losses, parts = [], []
    for _ in range(3):
        model.train()
        for inputs, targets in loader:
            if len(losses) == since and not parts:
                raise_rate(optimizer.optimizer, factor, scheduler.scheduler)
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                if guard is not None:
                    guard.log(loss=loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            parts.append(loss.item())
            if accelerator.sync_gradients:
                losses.append(sum(parts) / len(parts))
                parts = []
    made = outcome({"model": model}, {"optimizer": optimizer.optimizer}, losses, [guard])
    accelerator.free_memory()
    return made
