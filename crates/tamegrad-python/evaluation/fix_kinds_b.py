"""Objectives whose training explodes, second half: no rule of the search was made with a look at how
they end.

As the first half: functions ``(trial, fault)`` under :func:`kind`.
"""

from __future__ import annotations

import math

import torch
from fix_kind import EPOCHS, classes, kind, loss_of, metric_of, regression, sequences, train
from torch import nn
from torch.nn import functional as F

STEPS = EPOCHS * 32
"""Steps of a training."""


class Table(nn.Module):
    """A network for tables: blocks of linear, batch norm, activation and dropout."""

    def __init__(self, trial, outputs=6, width=40, blocks=3, norm=True, activation=nn.SiLU) -> None:
        super().__init__()
        width = trial.width(width)
        layers: list[nn.Module] = []
        for index in range(blocks):
            layers.append(nn.Linear(width if index else 20, width))
            layers += [nn.BatchNorm1d(width)] if norm else []
            layers += [activation(), nn.Dropout(0.05)]
        self.body, self.head = nn.Sequential(*layers), nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.body(x))


class Skips(nn.Module):
    """Residual blocks without any norm."""

    def __init__(self, blocks: int, gain: float, width: int = 40) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, width), nn.Linear(width, 6)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        for block in self.blocks:
            nn.init.normal_(block.weight, std=gain * width**-0.5)

    def forward(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = h + F.relu(block(h))
        return self.last(h)


class Gated(nn.Module):
    """An LSTM or a GRU that reads a sequence."""

    def __init__(self, cell, width: int = 32) -> None:
        super().__init__()
        self.cell, self.head = cell(8, width, batch_first=True), nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.cell(x)[0].mean(1))


class Encoder(nn.Module):
    """torch's own transformer encoder."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(8, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.0, batch_first=True, norm_first=True
        )
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.body(self.first(x)).mean(1))


class Pixels(nn.Module):
    """Convolutions in an ``nn.Sequential``."""

    def __init__(self, layers: int = 3, channels: int = 12, gain: float = 1.0) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for index in range(layers):
            parts += [nn.Conv2d(channels if index else 1, channels, 3, padding=1), nn.ReLU()]
            nn.init.kaiming_normal_(parts[-2].weight)
            parts[-2].weight.data.mul_(gain)
        self.body = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(channels, 6)

    def forward(self, x):
        return self.head(self.body(x))


def adamw(model, rate, **options):
    return torch.optim.AdamW(model.parameters(), lr=rate, **options)


def sgd(model, rate, **options):
    return torch.optim.SGD(model.parameters(), lr=rate, **{"momentum": 0.9, **options})


@kind("group-rate/encoder")
def group_rate(trial, fault):
    model = Encoder()
    body = [*model.first.parameters(), *model.body.parameters()]
    groups = [
        {"params": body, "lr": 0.02},
        {"params": model.head.parameters(), "lr": 40.0 if fault else 0.02},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.02, momentum=0.9)
    return train(trial, model, optimizer, sequences(trial))


@kind("beta-high/table")
def beta_high(trial, fault):
    model = Table(trial, norm=False)
    optimizer = adamw(model, 0.02, betas=(0.995, 0.9) if fault else (0.9, 0.999))
    return train(trial, model, optimizer, classes(trial))


@kind("rate-high/rmsprop")
def rate_high_rmsprop(trial, fault):
    model = Table(trial, norm=False)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=trial.rate(1.0 if fault else 2e-3))
    return train(trial, model, optimizer, classes(trial))


@kind("rate-high/gru")
def rate_high_gru(trial, fault):
    model = Gated(nn.GRU)
    return train(trial, model, adamw(model, trial.rate(3.0 if fault else 5e-3)), sequences(trial))


@kind("rate-high/encoder")
def rate_high_encoder(trial, fault):
    model = Encoder()
    return train(trial, model, adamw(model, trial.rate(0.5 if fault else 2e-3)), sequences(trial))


@kind("init-lstm/lstm")
def init_lstm(trial, fault):
    model = Gated(nn.LSTM)
    if fault:
        for parameter in model.cell.parameters():
            nn.init.normal_(parameter, std=3.0)
        nn.init.normal_(model.head.weight, std=50.0)
    return train(trial, model, sgd(model, trial.rate(0.1)), sequences(trial))


@kind("loss-weight/table")
def loss_weight(trial, fault):
    model = Table(trial, norm=False)
    optimizer = sgd(model, trial.rate(0.03))
    model, optimizer = trial.prepare(model, optimizer)
    data = classes(trial)
    for _ in range(trial.epochs(EPOCHS)):
        for x, y in trial.batches(data.loader()):
            output = model(x)
            loss = loss_of(output, y) + (300.0 if fault else 1e-3) * output.square().mean()
            trial.report(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    trial.report(metric=metric_of(model, *data.held(0)))
    trial.report(metric=metric_of(model, *data.held(1)), split="test")


@kind("restart-high/skips")
def restart_high(trial, fault):
    model = Skips(4, 0.5)
    optimizer = sgd(model, trial.rate(0.02))
    peak = 150.0 if fault else 1.0

    def factor(step):
        return (peak if step >= STEPS // 2 else 1.0) * (
            0.55 + 0.45 * math.cos(step / STEPS * 4 * math.pi)
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return train(trial, model, optimizer, classes(trial), at_step=lambda step: schedule.step())


@kind("rate-ramp/table")
def rate_ramp_table(trial, fault):
    model = Table(trial)
    optimizer = adamw(model, trial.rate(3e-3))

    def at_step(step):
        if fault and step >= 80:
            optimizer.param_groups[0]["lr"] *= 1.08

    return train(trial, model, optimizer, classes(trial), at_step=at_step)


@kind("init-all/tanh")
def init_all_tanh(trial, fault):
    model = Table(trial, blocks=8, norm=False, activation=nn.Tanh)
    for layer in model.body:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=4.0 if fault else layer.in_features**-0.5)
    if fault:
        nn.init.normal_(model.head.weight, std=30.0)
    return train(trial, model, sgd(model, 0.03), classes(trial))


@kind("init-deep/pixels")
def init_deep(trial, fault):
    model = Pixels(layers=6, gain=6.0 if fault else 1.0)
    return train(trial, model, adamw(model, trial.rate(3e-3)), classes(trial, image=True))


@kind("init-skips/skips")
def init_skips(trial, fault):
    model = Skips(20, 2.0 if fault else 0.2)
    return train(trial, model, sgd(model, trial.rate(0.02)), classes(trial))


@kind("bad-pixels-inf/pixels")
def bad_pixels(trial, fault):
    data = classes(trial, image=True)
    if fault:
        data.x[40:1000:250, 0, 2, 2] = math.inf
    model = Pixels()
    return train(trial, model, adamw(model, 1e-2), data)


@kind("outlier-targets/table")
def outlier_targets(trial, fault):
    data = regression(trial, 1.0)
    if fault:
        data.y[70:1000:200] = 1e6
    model = Table(trial, outputs=1, norm=False)
    return train(trial, model, sgd(model, 0.01), data)


@kind("target-scale/table")
def target_scale_table(trial, fault):
    model = Table(trial, outputs=1, norm=False)
    return train(
        trial, model, sgd(model, trial.rate(0.01)), regression(trial, 1e4 if fault else 1.0)
    )


@kind("input-scale/pixels")
def input_scale_pixels(trial, fault):
    data = classes(trial, image=True)
    if fault:
        data.x.mul_(255.0).add_(500.0)
    model = Pixels()
    return train(trial, model, sgd(model, trial.rate(0.1)), data)


@kind("sum-loss/encoder")
def sum_loss_encoder(trial, fault):
    model = Encoder()
    reduction = "sum" if fault else "mean"
    return train(trial, model, sgd(model, 0.1), sequences(trial), reduction=reduction)


@kind("decay-sign/adamw")
def decay_sign_adamw(trial, fault):
    model = Skips(4, 0.5)
    optimizer = adamw(model, 5e-3, weight_decay=1e-2)
    if fault:
        optimizer.param_groups[0]["weight_decay"] = -15.0
    return train(trial, model, optimizer, classes(trial))


@kind("exp-output/table")
def exp_output(trial, fault):
    """Counts with a logarithmic link, and a rate that its exponential does not bear."""
    model = Table(trial, outputs=1, norm=False)
    optimizer = sgd(model, trial.rate(2.0 if fault else 0.01))
    model, optimizer = trial.prepare(model, optimizer)
    data = regression(trial, 1.0)
    for _ in range(trial.epochs(EPOCHS)):
        for x, y in trial.batches(data.loader()):
            log_rate = model(x)
            loss = (log_rate.exp() - (y - data.y.min() + 0.1) * log_rate).mean()
            trial.report(loss)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def explained(part):
        x, y = data.held(part)
        y = y - data.y.min() + 0.1
        return float(1.0 - (model(x).exp() - y).square().mean() / y.var())

    trial.report(metric=explained(0))
    trial.report(metric=explained(1), split="test")


@kind("cubic-gate/table")
def cubic_gate(trial, fault):
    class Cubic(nn.Module):
        """x^3, as a gate that somebody thought of."""

        def forward(self, x):
            return x**3

    model = Table(trial, norm=False, blocks=4, activation=Cubic if fault else nn.ReLU)
    return train(trial, model, sgd(model, trial.rate(0.05)), classes(trial))
