"""Two processes that train together; one of them gets a broken batch.

    torchrun --nproc-per-node=2 examples/ddp.py

All ranks leave the step out together, and the rank that brought it is named.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import distributed as dist
from torch import nn

import tamegrad


def main() -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    warnings.simplefilter("ignore", tamegrad.TamegradWarning)
    torch.manual_seed(0)
    inner = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    model = nn.parallel.DistributedDataParallel(inner)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    guard = tamegrad.watch(model, optimizer, "protect")
    true = torch.randn(16, 4)
    torch.manual_seed(rank)
    for step in range(200):
        x = torch.randn(32, 16)
        y = (x @ true).argmax(1)
        if step == 120 and rank == dist.get_world_size() - 1:
            x[0, 0] = math.inf
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        guard.log(loss=loss)
        loss.backward()
        optimizer.step()
    actions = [(step, action.action) for step, action in guard.actions()]
    print(f"rank {rank}: {actions}, brought by ranks {guard.culprit_ranks}, loss {loss.item():.3f}")
    if rank == 0:
        print(guard.diagnosis())
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
