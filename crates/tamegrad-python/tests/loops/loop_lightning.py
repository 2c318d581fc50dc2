"""A Lightning module with early stopping and checkpoints, watched by the callback."""

from __future__ import annotations

import tempfile

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from loops_kit import images, outcome, raise_rate
from torch import nn

from tamegrad.integrations.lightning import TamegradCallback


class Classifier(pl.LightningModule):
    """A classifier whose own forward is not what training calls."""

    def __init__(self, factor=1.0, since=0):
        super().__init__()
        self.factor, self.since = factor, since
        self.net = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(32, 32),
            nn.ReLU(),
            nn.Linear(32, 4),
        )
        self.losses = []

    def forward(self, x):
        return self.net(x).argmax(1)

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == self.since:
            raise_rate(self.optimizers().optimizer, self.factor)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", nn.functional.cross_entropy(self.net(x), y))
        self.log("val_acc", (self(x) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def run(mode, factor, since=0):
    """Four epochs at most, on the CPU."""
    torch.manual_seed(1)
    x, y = images(800, 8, noise=1.5)
    data = torch.utils.data.TensorDataset(x[:640], y[:640])
    train_loader = torch.utils.data.DataLoader(data, batch_size=32, shuffle=True)
    data = torch.utils.data.TensorDataset(x[640:], y[640:])
    val_loader = torch.utils.data.DataLoader(data, batch_size=80)
    module = Classifier(factor, since)
    with tempfile.TemporaryDirectory() as folder:
        saving = ModelCheckpoint(folder, monitor="val_loss", save_weights_only=False)
        stopping = EarlyStopping("val_loss", patience=4, check_finite=False)
        guarding = TamegradCallback(mode, metric="val_acc") if mode else None
        trainer = pl.Trainer(
            max_epochs=4,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[saving, stopping, *([guarding] if guarding else [])],
        )
        trainer.fit(module, train_loader, val_loader)
        best = Classifier.load_from_checkpoint(saving.best_model_path, weights_only=False)
    return outcome(
        {"module": module, "best": best},
        {"optimizer": trainer.optimizers[0]},
        module.losses,
        [guarding.guard if guarding else None],
        score=float(saving.best_model_score),
        stopped=stopping.stopped_epoch,
        step=trainer.global_step,
    )
