"""Small models of several architectures, each with a task that it learns in a few hundred steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

HELD = 512
"""Samples that are held out."""


@dataclass
class Task:
    """A model with data to learn."""

    model: nn.Module
    draw: Callable[[int], tuple[torch.Tensor, torch.Tensor]]
    """Inputs and targets of so many samples."""
    classes: bool
    """Whether the targets are classes; otherwise they are numbers of mean 0 and variance 1."""
    rate: float
    """A good learning rate for SGD with momentum 0.9."""

    def __post_init__(self) -> None:
        self.held = self.draw(HELD)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.classes:
            return F.cross_entropy(output.flatten(0, -2), target.flatten())
        return F.mse_loss(output, target)

    def score(self) -> float:
        """What of the held-out part is explained, above the best constant answer, which has 0."""
        x, target = self.held
        output = self.model(x)
        if not bool(torch.isfinite(output).all()):
            return 0.0
        if self.classes:
            constant = float(torch.bincount(target.flatten()).max()) / target.numel()
            right = float((output.argmax(-1) == target).float().mean())
            return max(0.0, (right - constant) / (1.0 - constant))
        left = float((output.double() - target).square().mean())
        return max(0.0, 1.0 - left / float(target.double().var()))


# --- models --------------------------------------------------------------------------------------


def mlp(activation: Callable[[], nn.Module], depth: int, inputs: int = 16, outputs: int = 4):
    """A deep perceptron, initialised after He or LeCun."""
    layers: list[nn.Module] = []
    for index in range(depth):
        linear = nn.Linear(48 if index else inputs, 48)
        gain = "relu" if activation is nn.ReLU else "linear"
        nn.init.kaiming_normal_(linear.weight, nonlinearity=gain)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(48, outputs))


class Residual(nn.Module):
    def __init__(self, blocks: int = 5, outputs: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(16, 48)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 64), nn.GELU(), nn.Linear(64, 48))
            for _ in range(blocks)
        )
        self.last = nn.Linear(48, outputs)

    def forward(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


def conv(outputs: int = 4) -> nn.Module:
    """A convolution with batch norm over images of 8 by 8."""
    parts: list[nn.Module] = []
    for inputs, width, stride in ((1, 12, 1), (12, 16, 2), (16, 16, 1), (16, 24, 2)):
        parts += [nn.Conv2d(inputs, width, 3, stride, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(96, outputs))


class Recurrent(nn.Module):
    """A recurrent layer over a sequence; the answer is read from its last state."""

    def __init__(self, layer: nn.Module, outputs: int = 4) -> None:
        super().__init__()
        self.cell, self.last = layer, nn.Linear(layer.hidden_size, outputs)

    def forward(self, x):
        return self.last(self.cell(x)[0][:, -1])


class Half(torch.autograd.Function):
    """Rounds to 16 bits, values on the way forward and gradients on the way back, as a GPU does."""

    @staticmethod
    def forward(ctx, x):
        return x.half().float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().float()


class Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.half = False
        """Whether the logits are kept in 16 bits."""
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.scale = (width // heads) ** -0.5

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) * self.scale
        if self.half:
            logits = Half.apply(logits)
        if self.causal:
            ahead = torch.ones(logits.shape[-2:], dtype=torch.bool).triu(1)
            logits = logits.masked_fill(ahead, float("-inf"))
        return self.out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """A pre-norm transformer over tokens: a label for the whole, or the next token at each place."""

    def __init__(
        self, tokens: int, length: int, outputs: int, causal: bool, blocks: int = 2, width: int = 32
    ) -> None:
        super().__init__()
        self.embed, self.causal = nn.Embedding(tokens, width), causal
        self.places = nn.Parameter(torch.randn(length, width) * 0.1)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "attention": Attention(width, 2, causal),
                    "norm2": nn.LayerNorm(width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(blocks)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, x):
        h = self.embed(x) + self.places
        for block in self.blocks:
            h = h + block["attention"](block["norm1"](h))
            h = h + block["down"](F.gelu(block["up"](block["norm2"](h))))
        return self.head(self.norm(h) if self.causal else self.norm(h).mean(1))


def autoencoder() -> nn.Module:
    sizes = [24, 48, 32, 4, 32, 48, 24]
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ELU()]
    return nn.Sequential(*layers[:-1])


class Adversaries(nn.Module):
    """A generator of points of the plane from noise, with its critic."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 2))
        self.critic = nn.Sequential(
            nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2)
        )
        self.critic.append(nn.Linear(48, 1))

    def forward(self, noise):
        return self.generator(noise)


# --- tasks ---------------------------------------------------------------------------------------


def answered(scores: torch.Tensor, classes: bool) -> torch.Tensor:
    """Scores of a teacher as classes or as numbers."""
    return scores.argmax(-1) if classes else scores


def vectors(model: nn.Module, rate: float, g: torch.Generator, classes: bool = True) -> Task:
    """A teacher that is linear with a bend, of vectors of 16."""
    true, bend = torch.randn(16, 4, generator=g) / 4, torch.randn(16, 4, generator=g) / 4

    def draw(count):
        x = torch.randn(count, 16, generator=g)
        scores = (x @ true + 0.5 * torch.tanh(2 * x @ bend)) / 1.08
        return x, answered(scores, classes)

    return Task(model, draw, classes, rate)


def images(model: nn.Module, rate: float, g: torch.Generator, classes: bool = True) -> Task:
    """Which of four smooth patterns is in a noisy image, or how much of each."""
    patterns = F.interpolate(torch.randn(4, 1, 4, 4, generator=g), size=8, mode="bilinear")
    patterns = patterns / patterns.flatten(1).std(1)[:, None, None, None]

    def draw(count):
        amounts = torch.randn(count, 4, generator=g)
        noise = torch.randn(count, 1, 8, 8, generator=g)
        return torch.einsum("na,achw->nchw", amounts, patterns) + noise, answered(amounts, classes)

    return Task(model, draw, classes, rate)


def sequence_answers(x: torch.Tensor) -> torch.Tensor:
    """The mean over a sequence, to which late parts count more."""
    weight = torch.linspace(0.3, 1.0, x.shape[1])
    return torch.einsum("ntc,t->nc", x, weight / weight.norm())


def sequences(
    model: nn.Module, rate: float, g: torch.Generator, classes: bool = True, length: int = 16
) -> Task:
    """A weighted mean of a sequence, or which part of it is the largest."""

    def draw(count):
        x = torch.randn(count, length, 4, generator=g)
        return x, answered(sequence_answers(x), classes)

    return Task(model, draw, classes, rate)


def tokens(model: nn.Module, rate: float, g: torch.Generator, classes: bool = True) -> Task:
    """Which of four tokens, among twelve, is most frequent in a sequence, or how frequent each is."""

    def draw(count):
        weight = torch.rand(count, 12, generator=g).square()
        x = torch.multinomial(weight, 12, replacement=True, generator=g)
        counts = F.one_hot(x, 12)[..., :4].sum(1).float()
        return x, answered((counts - 1) / 1.2 + torch.arange(4) * 1e-3, classes)

    return Task(model, draw, classes, rate)


def text(model: nn.Module, rate: float, g: torch.Generator) -> Task:
    """The next letter of a language of 16 letters, each of which depends on the two before."""
    follows = torch.randint(0, 16, (16, 2), generator=g)

    def draw(count):
        count = min(count, 128) if count > 64 else max(count // 2, 1)
        letters = [torch.randint(0, 16, (count,), generator=g) for _ in range(2)]
        for _ in range(23):
            odd = (letters[-2] % 2).long()
            usual = follows[letters[-1], odd]
            other = torch.randint(0, 16, (count,), generator=g)
            letters.append(torch.where(torch.rand(count, generator=g) < 0.85, usual, other))
        rows = torch.stack(letters, 1)
        return rows[:, :-1], rows[:, 1:]

    return Task(model, draw, True, rate)


def blends(model: nn.Module, rate: float, g: torch.Generator) -> Task:
    """Vectors of 24 that four numbers determine, to be reproduced."""
    mix = torch.randn(4, 24, generator=g) / 2

    def draw(count):
        x = torch.randn(count, 4, generator=g) @ mix
        return x, x

    return Task(model, draw, False, rate)


def points(model: nn.Module, rate: float, g: torch.Generator) -> Task:
    """Points of the plane, to be imitated."""
    mean, spread = torch.tensor([2.0, -1.5]), torch.tensor([0.7, 0.3])

    def draw(count):
        x = mean + spread * torch.randn(count, 2, generator=g)
        return x, x

    return Task(model, draw, False, rate)


TASKS: dict[str, Callable[[torch.Generator], Task]] = {
    "relu": lambda g: vectors(mlp(nn.ReLU, 8), 0.02, g),
    "tanh": lambda g: vectors(mlp(nn.Tanh, 6), 0.02, g),
    "residual": lambda g: vectors(Residual(), 0.02, g),
    "conv": lambda g: images(conv(), 0.02, g),
    "gru": lambda g: sequences(Recurrent(nn.GRU(4, 32, batch_first=True)), 0.1, g),
    "rnn": lambda g: sequences(Recurrent(nn.RNN(4, 32, batch_first=True)), 0.02, g),
    "transformer": lambda g: tokens(Transformer(12, 12, 4, causal=False), 0.05, g),
    "lm": lambda g: text(Transformer(16, 24, 16, causal=True), 0.1, g),
    "autoencoder": lambda g: blends(autoencoder(), 0.05, g),
    "points": lambda g: points(Adversaries(), 0.02, g),
    "relu-numbers": lambda g: vectors(mlp(nn.ReLU, 8), 0.01, g, classes=False),
    "residual-numbers": lambda g: vectors(Residual(), 0.02, g, classes=False),
    "conv-numbers": lambda g: images(conv(), 0.02, g, classes=False),
    "gru-numbers": lambda g: sequences(
        Recurrent(nn.GRU(4, 32, batch_first=True)), 0.1, g, classes=False
    ),
}
