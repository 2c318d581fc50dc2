"""The callback in a real Trainer."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import batches, mlp
from torch import nn

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = mlp()

    def forward(self, x, labels):
        logits = self.net(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def run(tmp_path, mode, poisoned=None, **options):
    from tamegrad.integrations.transformers import TamegradCallback

    data = [{"x": x[i], "labels": y[i]} for x, y in batches(30, size=8) for i in range(8)]
    if poisoned is not None:
        data[poisoned * 8] = {**data[poisoned * 8], "x": data[poisoned * 8]["x"] * math.inf}
    callback = TamegradCallback(mode, strict=True, **options) if mode else None
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        per_device_train_batch_size=8,
        num_train_epochs=1,
        max_grad_norm=0.0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        train_sampling_strategy="sequential",
    )
    model = Net()
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, callbacks=[callback] if callback else []
    )
    trainer.train()
    return model, callback


def test_a_watched_run_is_the_bare_run(tmp_path):
    (bare, _), (watched, callback) = run(tmp_path, None), run(tmp_path, "observe")
    assert all(
        torch.equal(a, b) for a, b in zip(bare.parameters(), watched.parameters(), strict=True)
    )
    assert callback.guard.step == 30
    assert callback.diagnosis().verdict == "healthy"


def test_protect_leaves_out_the_broken_batch(tmp_path):
    model, callback = run(tmp_path, "protect", poisoned=20, max_norm=1.0)
    assert [(s, a.action) for s, a in callback.guard.actions()] == [(20, "skip")]
    assert all(torch.isfinite(p).all() for p in model.parameters())
