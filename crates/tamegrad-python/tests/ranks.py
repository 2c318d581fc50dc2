"""Two processes that train together; started by test_ranks.py, prints JSON from each rank."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings

import torch
from conftest import Switch, acted, batches, loss_of, mlp
from torch import distributed as dist
from torch import nn

import tamegrad


def full(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(kind: str, mode: str | None, fault: str) -> dict:
    """``fault`` is the rank whose inputs are Inf at step 20, ``switch`` for a layer that multiplies by
    a thousand at step 120, ``clip`` for clipping to a norm of 0.05, ``bug`` for an error inside the
    guard of rank 1 at step 10, ``close`` for one that rank 1 closes there, or ``-``."""
    rank = dist.get_rank()
    inner = mlp(activation=nn.ReLU)
    switch = Switch()
    inner.insert(4, switch)
    steps = 130 if fault == "switch" else 30
    if kind == "ddp":
        model: nn.Module = nn.parallel.DistributedDataParallel(inner)
    elif kind == "fsdp2":
        from torch.distributed.fsdp import fully_shard

        for layer in inner:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        model = fully_shard(inner)
    else:
        model = inner
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    options = {"strict": fault not in ("bug", "close"), "run": os.environ.get("RUN")}
    guard = tamegrad.watch(model, optimizer, mode, **options) if mode else None
    norms, oracle = [], []
    for step, (x, y) in enumerate(batches(steps, size=64)):
        half = slice(rank * 32, rank * 32 + 32) if kind != "single" else slice(None)
        x, y = x[half], y[half]
        if step == 20 and fault == str(rank):
            x = x * math.inf
        if fault == "bug" and guard is not None and rank == 1 and step == 10:
            guard._steps.scan = None
        if fault == "close" and guard is not None and rank == 1 and step == 10:
            guard.close()
        switch.on = fault == "switch" and step == 120
        optimizer.zero_grad()
        loss = loss_of(model, x, y)
        loss.backward()
        if guard is not None:
            guard.log(loss=loss)
        if fault == "clip" and guard is not None:
            guard.clip_(0.05)
        elif fault == "clip":
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        total = [float(full(p.grad).double().norm()) for p in model.parameters()]
        oracle.append(math.hypot(*total))
        optimizer.step()
        if guard is not None and fault not in ("bug", "close"):
            norms.append(guard.gradient_norm)
    each = [full(p).detach().double().flatten().tolist() for p in model.parameters()]
    weights = [full(p).detach().double().sum().item() for p in model.parameters()]
    report = {"weights": weights, "each": each, "norms": norms, "oracle": oracle}
    if guard is not None:
        diagnosis = guard.diagnosis()
        report |= {
            "text": str(diagnosis),
            "onset": diagnosis.onset,
            "origin": diagnosis.origin,
            "actions": acted(guard),
            "stopped": guard._detached,
            "failure": guard.failure,
            "culprits": guard.culprit_ranks,
            "run_folder": guard.run_folder and str(guard.run_folder),
        }
        guard.close()
    return report


def main() -> None:
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo")
    kind, mode, fault = sys.argv[1:4]
    report = train(kind, None if mode == "bare" else mode, fault)
    path = os.environ["REPORT"] + f".{dist.get_rank()}"
    with open(path, "w") as file:
        json.dump(report, file)
    # Neither rank goes before the other has its numbers.
    dist.barrier()
    # At once: gloo's threads can abort a process that ends by itself, one that nobody watches too.
    os._exit(0)


if __name__ == "__main__":
    main()
