"""A small GPT whose learning rate is far too high: the least change that mends it is searched.

    python examples/fix_gpt.py
    python -m tamegrad fix examples/fix_gpt.py:objective --workers 2

The metric is a loss on text that is not trained on, so a good one is low.
"""

from __future__ import annotations

import torch
from gpt_rate_jump import Gpt, loss_of, text

import tamegrad

STEPS = 240


def objective(trial: tamegrad.Trial) -> None:
    generator = torch.Generator().manual_seed(trial.seed)
    validation, test = text(64, generator), text(64, generator)
    model = Gpt()
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.rate(0.2))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, trial.steps(STEPS))
    model, optimizer = trial.prepare(model, optimizer)
    for rows in trial.batches(text(16, generator) for _ in range(STEPS)):
        loss = loss_of(model, rows)
        trial.report(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        trial.report(metric=loss_of(model, validation))
        trial.report(metric=loss_of(model, test), split="test")


def main() -> None:
    result = tamegrad.fix(objective, budget=3.0, direction="minimize")
    print(result)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
