"""Objectives whose training explodes, first half: small networks with one fault each, and the same
without it.

Each is a function ``(trial, fault)`` under :func:`kind`. It trains as a user would have it, reports a
validation and a test metric (higher is better), and offers the knobs that came to hand. They were in view
while the rules of the search were written.
"""

from __future__ import annotations

import math

import torch
from fix_kind import Net, classes, kind, regression, sequences, train
from torch import nn
from torch.nn import functional as F


def perceptron(trial, activation=nn.ReLU, depth: int = 8, width: int = 48, outputs: int = 6):
    """A plain deep perceptron, with He's initialisation."""
    layers: list[nn.Module] = []
    inputs = 20
    for _ in range(trial.depth(depth)):
        layers += [nn.Linear(inputs, width), activation()]
        inputs = width
    model = nn.Sequential(*layers, nn.Linear(inputs, outputs))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model


class Residual(nn.Module):
    """A residual network with layer norm."""

    def __init__(self, blocks: int = 4, width: int = 48, outputs: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(20, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
            )
            for _ in range(blocks)
        )
        self.last = nn.Linear(width, outputs)

    def forward(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class Conv(nn.Module):
    """A plain convolutional network on 8x8 images."""

    def __init__(self, layers: int = 3, channels: int = 12, outputs: int = 6) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if i else 1, channels, 3, padding=1) for i in range(layers)
        )
        self.head = nn.Linear(channels, outputs)

    def forward(self, x):
        for conv in self.convs:
            x = F.relu(conv(x))
        return self.head(x.mean((2, 3)))


class Recurrent(nn.Module):
    """A recurrent network that reads a sequence and answers at its end."""

    def __init__(self, cell=nn.RNN, width: int = 48, outputs: int = 4) -> None:
        super().__init__()
        self.cell = cell(8, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


class Block(nn.Module):
    """A block of a transformer, with a scale for the attention logits."""

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.scale = scale

    def forward(self, x):
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(torch.softmax(q @ k.transpose(1, 2) * self.scale, -1) @ v)
        return x + self.mlp(self.norm2(x))


class Attention(nn.Module):
    """A small transformer over sequences."""

    def __init__(
        self, width: int = 32, blocks: int = 2, outputs: int = 4, scale: float | None = None
    ):
        super().__init__()
        self.first = nn.Linear(8, width)
        self.place = nn.Parameter(0.1 * torch.randn(24, width))
        self.blocks = nn.Sequential(*(Block(width, scale or width**-0.5) for _ in range(blocks)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x):
        h = self.first(x)
        return self.head(self.norm(self.blocks(h + self.place[: x.shape[1]])).mean(1))


def rate(model, trial, usual, factor):
    """SGD with momentum at a rate, or at one that is wrong by a factor."""
    return torch.optim.SGD(model.parameters(), lr=trial.rate(usual * factor), momentum=0.9)


@kind("rate-high/mlp")
def rate_high_mlp(trial, fault):
    model = perceptron(trial, depth=4)
    return train(trial, model, rate(model, trial, 0.02, 60.0 if fault else 1.0), classes(trial))


@kind("rate-high/conv")
def rate_high_conv(trial, fault):
    model = Conv()
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.rate(1.0 if fault else 1e-2))
    return train(trial, model, optimizer, classes(trial, image=True))


@kind("rate-high/residual")
def rate_high_residual(trial, fault):
    model = Residual()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3.0 if fault else 2e-3)
    return train(trial, model, optimizer, classes(trial))


@kind("rate-jump/residual")
def rate_jump(trial, fault):
    model = Residual()
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.rate(2e-3))

    def at_step(step):
        if fault and step == 120:
            optimizer.param_groups[0]["lr"] *= 3000.0

    return train(trial, model, optimizer, classes(trial), at_step=at_step)


@kind("rate-jump/mlp")
def rate_jump_mlp(trial, fault):
    model = perceptron(trial, nn.Tanh, depth=4)
    optimizer = rate(model, trial, 0.02, 1.0)

    def at_step(step):
        if fault and step == 80:
            optimizer.param_groups[0]["lr"] *= 200.0

    return train(trial, model, optimizer, classes(trial), at_step=at_step)


@kind("rate-ramp/mlp")
def rate_ramp(trial, fault):
    model = perceptron(trial, depth=5)
    optimizer = rate(model, trial, 0.02, 1.0)

    def at_step(step):
        if fault and step >= 60:
            optimizer.param_groups[0]["lr"] *= 1.04

    return train(trial, model, optimizer, classes(trial), at_step=at_step)


@kind("init-all/mlp")
def init_all(trial, fault):
    model = perceptron(trial, depth=12)
    if fault:
        for layer in model[::2]:
            layer.weight.data.mul_(3.0)
    return train(trial, model, rate(model, trial, 0.01, 1.0), classes(trial))


@kind("init-all/conv")
def init_all_conv(trial, fault):
    model = Conv()
    if fault:
        for conv in model.convs:
            nn.init.normal_(conv.weight, std=30.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=trial.rate(1e-2))
    return train(trial, model, optimizer, classes(trial, image=True))


@kind("init-one/mlp")
def init_one(trial, fault):
    model = perceptron(trial, depth=6)
    if fault:
        model[6].weight.data.mul_(300.0)
    return train(trial, model, rate(model, trial, 0.02, 1.0), classes(trial))


@kind("init-one/residual")
def init_one_residual(trial, fault):
    model = Residual()
    if fault:
        nn.init.normal_(model.last.weight, std=100.0)
    return train(trial, model, rate(model, trial, 0.02, 1.0), classes(trial))


class Exp(nn.Module):
    """exp(x)."""

    def forward(self, x):
        return torch.exp(x)


class Square(nn.Module):
    """x |x|."""

    def forward(self, x):
        return x * x.abs()


@kind("activation-exp/mlp")
def activation_exp(trial, fault):
    model = perceptron(trial, depth=6)
    if fault:
        model[5], model[9] = Exp(), Exp()
    return train(trial, model, rate(model, trial, 0.02, 1.0), classes(trial))


@kind("activation-square/mlp")
def activation_square(trial, fault):
    model = perceptron(trial, Square if fault else nn.ReLU, depth=5)
    return train(trial, model, rate(model, trial, 0.02, 1.0), classes(trial))


@kind("activation-function/conv")
def activation_function(trial, fault):
    class Own(Conv):
        act = staticmethod(trial.activation((lambda x: x**3) if fault else torch.relu))

        def forward(self, x):
            for conv in self.convs:
                x = self.act(2.0 * conv(x))
            return self.head(x.mean((2, 3)))

    model = Own()
    return train(trial, model, rate(model, trial, 0.1, 1.0), classes(trial, image=True))


@kind("recurrent-radius/rnn")
def recurrent_radius(trial, fault):
    model = Recurrent()
    model.cell.nonlinearity, model.cell.mode = "relu", "RNN_RELU"
    nn.init.orthogonal_(model.cell.weight_hh_l0)
    if fault:
        model.cell.weight_hh_l0.data.mul_(2.5)
    return train(trial, model, rate(model, trial, 0.01, 1.0), sequences(trial))


@kind("target-scale/mlp")
def target_scale(trial, fault):
    model = perceptron(trial, depth=3, outputs=1)
    return train(
        trial, model, rate(model, trial, 0.01, 1.0), regression(trial, 500.0 if fault else 1.0)
    )


@kind("target-scale/adam")
def target_offset(trial, fault):
    model = perceptron(trial, nn.Tanh, depth=3, outputs=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=trial.rate(10.0 if fault else 3e-3))
    return train(trial, model, optimizer, regression(trial, 300.0 if fault else 1.0))


@kind("input-scale/mlp")
def input_scale(trial, fault):
    model = perceptron(trial, depth=3)
    data = classes(trial, scale=torch.logspace(-1, 4, 20) if fault else 1.0)
    return train(trial, model, rate(model, trial, 0.02, 1.0), data)


@kind("bad-rows-nan/mlp")
def bad_rows(trial, fault):
    data = classes(trial)
    if fault:
        data.x[100:1900:300, 3] = math.nan
    model = perceptron(trial, depth=4)
    return train(trial, model, rate(model, trial, 0.02, 1.0), data)


@kind("bad-rows-large/residual")
def bad_rows_large(trial, fault):
    data = regression(trial, 1.0)
    if fault:
        data.x[50:1900:400] *= 1e5
        data.y[50:1900:400] *= 1e5
    model = Residual(outputs=1)
    return train(trial, model, rate(model, trial, 0.01, 1.0), data)


@kind("momentum/mlp")
def momentum(trial, fault):
    model = perceptron(trial, depth=4)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.03, momentum=trial.momentum(0.999 if fault else 0.9)
    )
    return train(trial, model, optimizer, classes(trial))


@kind("decay-sign/mlp")
def decay_sign(trial, fault):
    model = perceptron(trial, depth=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    if fault:
        optimizer.param_groups[0]["weight_decay"] = -0.08
    return train(trial, model, optimizer, classes(trial))


@kind("no-norm/deep")
def no_norm(trial, fault):
    model = Net(16, trial, norm=not fault, gain=1.6)
    return train(trial, model, rate(model, trial, 0.01, 1.0), classes(trial))


@kind("sum-loss/mlp")
def sum_loss(trial, fault):
    model = perceptron(trial, depth=4)
    return train(
        trial,
        model,
        rate(model, trial, 0.02, 1.0),
        classes(trial),
        reduction="sum" if fault else "mean",
    )


@kind("no-zero-grad/conv")
def no_zero_grad(trial, fault):
    model = Conv()
    optimizer = rate(model, trial, 0.1, 1.0)
    return train(trial, model, optimizer, classes(trial, image=True), clears=not fault)


@kind("attention-logits/transformer")
def attention_logits(trial, fault):
    model = Attention(scale=30.0 if fault else None)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=trial.rate(2.0 if fault else 0.05), momentum=0.9
    )
    return train(trial, model, optimizer, sequences(trial))
