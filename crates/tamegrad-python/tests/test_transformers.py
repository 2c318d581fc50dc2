"""The callback in a real Trainer."""

from __future__ import annotations

import json
import math

import pytest
from conftest import acted, batches, is_finite, mlp, same_weights
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


def cross_entropy(outputs, labels, num_items_in_batch=None):
    return nn.functional.cross_entropy(outputs["logits"], labels)


class Logits(Net):
    """A model that leaves the loss to the Trainer."""

    def forward(self, x):
        return {"logits": self.net(x)}


def run(tmp_path, mode, poisoned=None, settings=None, resume=False, loss=None, **options):
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
        **{"save_strategy": "no", **(settings or {})},
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        seed=3,
        train_sampling_strategy="sequential",
    )
    model = Net() if loss is None else Logits()
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=data,
        compute_loss_func=loss,
        callbacks=[callback] if callback else [],
    )
    trainer.train(resume_from_checkpoint=resume)
    return model, callback


def test_a_watched_run_is_the_bare_run(tmp_path):
    (bare, _), (watched, callback) = run(tmp_path, None), run(tmp_path, "observe")
    assert same_weights(bare, watched)
    assert callback.guard.step_number == 30
    assert "Loss  " in str(callback.diagnosis()), "the model's output holds the loss of every step"
    assert callback.diagnosis().verdict == "healthy"


def test_a_loss_that_the_trainer_makes_is_taken_from_its_reports(tmp_path):
    settings = {"logging_steps": 5, "label_names": ["labels"]}
    _, callback = run(tmp_path, "observe", settings=settings, loss=cross_entropy)
    assert not callback.guard.sees_loss
    assert "Loss  " in str(callback.diagnosis())


def test_the_losses_of_accumulated_batches_are_those_of_one_step(tmp_path):
    settings = {"gradient_accumulation_steps": 3}
    _, callback = run(tmp_path, "observe", poisoned=16, settings=settings)
    assert callback.guard.step_number == 10
    diagnosis = callback.diagnosis()
    assert (diagnosis.onset, diagnosis.cause) == (5, "data"), "the second batch of the sixth step"


def test_protect_leaves_out_the_broken_batch(tmp_path):
    model, callback = run(tmp_path, "protect", poisoned=20, max_norm=1.0)
    assert acted(callback.guard) == [(20, "skip")]
    assert is_finite(model)


def test_a_resumed_run_goes_on_with_what_was_seen(tmp_path):
    whole = run(tmp_path / "whole", "observe", poisoned=12)[1]
    saves = {"save_strategy": "steps", "save_steps": 10}
    run(tmp_path / "parts", "observe", poisoned=12, settings={**saves, "max_steps": 20})
    saved = tmp_path / "parts" / "checkpoint-20" / "tamegrad.pt"
    assert saved.is_file()
    _, resumed = run(tmp_path / "parts", "observe", poisoned=12, settings=saves, resume=True)
    assert resumed.guard.step_number == whole.guard.step_number == 30
    seen = [[(f.sign, f.step) for f in run.guard.findings()] for run in (whole, resumed)]
    assert seen[0] == seen[1]
    assert resumed.diagnosis().onset == 12
    saved.unlink()
    with pytest.warns(UserWarning, match="nothing is known about the steps before"):
        _, anew = run(tmp_path / "parts", "observe", settings=saves, resume=str(saved.parent))
    assert anew.guard.step_number == 10


def test_a_run_is_recorded_and_goes_on_in_its_folder_when_it_is_resumed(tmp_path):
    saves, record = {"save_strategy": "steps", "save_steps": 10}, tmp_path / "x"
    run(tmp_path, "observe", poisoned=12, settings={**saves, "max_steps": 20}, run=record)
    run(tmp_path, "observe", poisoned=12, settings=saves, resume=True, run=record)
    state = json.loads((record / "diagnosis.json").read_text())
    assert (state["step"], state["end"], state["diagnosis"]["onset_step"]) == (29, "completed", 12)
    assert not (tmp_path / "x-2").exists()
