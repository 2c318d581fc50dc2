"""Objectives of other forms: loops without knobs, several models, and the libraries' trainers."""

from __future__ import annotations

import pytest
import torch
from fix_objectives import EPOCHS, ROWS, accuracy, data, network
from torch import nn

import tamegrad
from tamegrad._fix.outcome import Task
from tamegrad._fix.run import run_trial


def plain(trial, *, rate: float = 6.0):
    """A loop of one's own, which evaluates now and then, without any knob."""
    x, y = data()
    model = network(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    model, optimizer = trial.prepare(model, optimizer)
    for step in range(96):
        rows = torch.randint(ROWS, (32,))
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trial.report(loss)
        if step % 8 == 7:
            trial.report(metric=accuracy(model, x[ROWS : 2 * ROWS], y[ROWS : 2 * ROWS]))


def test_a_loop_without_knobs_is_left_at_a_step():
    found = tamegrad.fix(plain)
    assert found.given.part == 1.0 and found.given.cost == 1.0
    assert {trial.part for trial in found.trials[1:-1]} != {1.0}
    assert found.is_fixed and found.best.metric > 0.8, str(found)


def adversarial(trial, *, rate: float = 1e-3):
    """A GAN on a ring of points: two models, two optimizers, one loop."""
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    optimizers = [torch.optim.Adam(m.parameters(), lr=rate) for m in (generator, critic)]
    (generator, critic), (of_g, of_c) = trial.prepare((generator, critic), optimizers)
    judge = nn.functional.binary_cross_entropy_with_logits
    one, zero = torch.ones(32, 1), torch.zeros(32, 1)
    for angle in trial.batches(6.28 * torch.rand(trial.steps(120), 32)):
        real = torch.stack([angle.cos(), angle.sin()], 1)
        fake = generator(torch.randn(32, 4))
        loss_c = judge(critic(real), one) + judge(critic(fake.detach()), zero)
        of_c.zero_grad()
        loss_c.backward()
        of_c.step()
        loss_g = judge(critic(fake), one)
        trial.report(loss_c.detach() + loss_g.detach())
        of_g.zero_grad()
        loss_g.backward()
        of_g.step()
    radius = generator(torch.randn(256, 4)).norm(dim=1)
    trial.report(metric=-float((radius - 1.0).abs().mean().detach()))


@pytest.mark.parametrize(
    ("rate", "verdicts"),
    [(1e-3, {"healthy", "not-learning"}), (30.0, {"exploded", "exploding", "dead"})],
)
def test_a_gan_is_one_trial(rate, verdicts):
    outcome = run_trial(lambda trial: adversarial(trial, rate=rate), Task("as given"))
    assert outcome.error is None and outcome.verdict in verdicts
    assert (outcome.steps == 120) == (rate == 1e-3)


class Records(torch.utils.data.Dataset):
    """Rows as dictionaries."""

    def __init__(self, part: int) -> None:
        x, y = data()
        self.x, self.y = (tensor[part * ROWS : (part + 1) * ROWS] for tensor in (x, y))

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int):
        return {"x": self.x[index], "labels": self.y[index]}


def with_lightning(trial, tmp_path):
    """A module of Lightning and its Trainer."""
    lightning = pytest.importorskip("lightning")
    from tamegrad.integrations.lightning import TrialCallback

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(3)

        def training_step(self, batch, index):
            return nn.functional.cross_entropy(self.net(batch["x"]), batch["labels"])

        def validation_step(self, batch, index):
            good = (self.net(batch["x"]).argmax(1) == batch["labels"]).float().mean()
            self.log("accuracy", good)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=trial.rate(6.0), momentum=0.9)

    trainer = lightning.Trainer(
        max_epochs=trial.epochs(EPOCHS),
        callbacks=[TrialCallback(trial, metric="accuracy")],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    loader = torch.utils.data.DataLoader(Records(0), 32, shuffle=True)
    trainer.fit(Module(), trial.batches(loader), torch.utils.data.DataLoader(Records(1), 128))


def with_transformers(trial, tmp_path):
    """A Trainer of Transformers."""
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from tamegrad.integrations.transformers import TrialCallback

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network(3)

        def forward(self, x, labels):
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=32,
        learning_rate=6.0,
        max_grad_norm=0.0,
        optim="sgd",
        lr_scheduler_type="constant",
        seed=trial.seed,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )

    def accuracy_of(predicted):
        return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}

    trainer = transformers.Trainer(
        Model(),
        arguments,
        train_dataset=Records(0),
        eval_dataset=Records(1),
        compute_metrics=accuracy_of,
        callbacks=[TrialCallback(trial, metric="eval_accuracy")],
    )
    trainer.train()
    trainer.evaluate()


@pytest.mark.parametrize("fit", [with_lightning, with_transformers])
def test_a_trainer_is_searched_as_a_loop_is(fit, tmp_path):
    found = tamegrad.fix(lambda trial: fit(trial, tmp_path))
    assert found.given.verdict in ("exploded", "exploding", "dead"), str(found)
    assert found.is_fixed and found.best.metric > 0.8, str(found)
    assert 1.0 < found.cost <= 3.0
