"""The callback in a real Lightning run."""

from __future__ import annotations

import json
import math

import pytest
import torch
from conftest import acted, batches, is_finite, loss_of, mlp, same_weights

pl = pytest.importorskip("lightning.pytorch")


class Module(pl.LightningModule):
    def __init__(self, poisoned: int | None, manual: bool = False):
        super().__init__()
        self.net, self.poisoned = mlp(), poisoned
        self.automatic_optimization = not manual

    def training_step(self, batch, index):
        x, y = batch
        if index == self.poisoned:
            x = x * math.inf
        loss = loss_of(self.net, x, y)
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def run(mode, poisoned=None, manual=False, folder=None, resume=None, also=(), **options):
    from tamegrad.integrations.lightning import TamegradCallback

    module = Module(poisoned, manual)
    callback = TamegradCallback(mode, strict=True, **options) if mode else None
    callbacks = [callback, *also] if callback else []
    if folder is not None:
        save = pl.callbacks.ModelCheckpoint(folder, "at", every_n_train_steps=20, save_top_k=-1)
        callbacks.append(save)
    fit(module, callbacks, folder, resume)
    return module, callback


def fit(module, callbacks, folder=None, resume=None):
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    data = torch.utils.data.DataLoader(list(batches(40)), batch_size=None)
    trainer.fit(module, data, ckpt_path=resume)


@pytest.mark.parametrize("manual", [False, True])
def test_a_watched_run_is_the_bare_run_and_knows_its_loss(manual):
    (bare, _), (watched, callback) = run(None, manual=manual), run("observe", manual=manual)
    assert same_weights(bare, watched)
    assert callback.guard.step_number == 40
    assert "Loss  " in str(callback.diagnosis())
    assert callback.diagnosis().verdict == "healthy"


class Breaking(Module):
    """Takes the logarithm of 0 in one step, and logs; it may reach for its trainer."""

    def __init__(self, reaches):
        super().__init__(None)
        self.reaches = reaches

    def training_step(self, batch, index):
        x, y = batch
        p = self.net(x).softmax(1) * (index != 20)
        loss = -torch.log(p).mean()
        self.log("loss", loss)
        self.log("epoch", self.trainer.current_epoch if self.reaches else 0)
        return loss


@pytest.mark.parametrize("reaches", [False, True])
def test_the_line_of_the_loss_is_found_without_a_step_fn(reaches, told):
    from tamegrad.integrations.lightning import TamegradCallback

    module, callback = Breaking(reaches), TamegradCallback(strict=True)
    fit(module, [callback])
    operation = callback.guard._steps.after_alarm.inspection.operation
    if reaches:
        # Its graph is there to be read before the backward pass.
        assert any("could not be repeated" in said for said in told())
    assert operation.kind == "log" and "torch.log(p)" in operation.line.code
    if reaches:
        return
    assert not any("side effects" in said for said in told())
    assert module.trainer is not None and "log" not in vars(module)


def test_protect_leaves_out_the_broken_batch():
    module, callback = run("protect", poisoned=20)
    assert acted(callback.guard) == [(20, "skip")]
    assert is_finite(module)


def test_a_resumed_run_goes_on_with_what_was_seen(tmp_path):
    whole = run("observe", poisoned=12, folder=tmp_path)[1]
    resumed = run("observe", poisoned=12, resume=tmp_path / "at.ckpt")[1]
    assert resumed.guard.step_number == whole.guard.step_number == 40
    seen = [[(f.sign, f.step) for f in run.guard.findings()] for run in (whole, resumed)]
    assert seen[0] == seen[1]
    assert resumed.diagnosis().onset == 12


def ending(folder):
    state = json.loads((folder / "diagnosis.json").read_text())
    return state["step"], state["end"], state["diagnosis"]["onset_step"]


def test_a_run_is_recorded_and_goes_on_in_its_folder_when_it_is_resumed(tmp_path):
    checkpoints, record = tmp_path / "checkpoints", tmp_path / "x"
    run("observe", poisoned=12, folder=checkpoints, run=record)
    assert ending(record) == (39, "completed", 12)
    run("observe", poisoned=12, resume=checkpoints / "at.ckpt", run=record)
    assert ending(record) == (39, "completed", 12)
    assert not (tmp_path / "x-2").exists()


def test_an_exception_ends_the_recorded_run(tmp_path):
    class Failing(pl.Callback):
        def on_train_batch_end(self, *args):
            if args[-1] == 20:
                raise KeyError("a secret")

    with pytest.raises(KeyError):
        run("observe", run=tmp_path / "x", also=[Failing()])
    assert ending(tmp_path / "x") == (20, "exception: KeyError", None)


def test_there_is_nothing_to_diagnose_before_the_run():
    from tamegrad.integrations.lightning import TamegradCallback

    with pytest.raises(RuntimeError, match="the run has not started"):
        TamegradCallback().diagnosis()
