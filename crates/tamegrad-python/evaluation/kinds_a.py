"""The first half of the kinds of runs: faults of the step, the start, the batch and the number type."""

from __future__ import annotations

import math

import torch
from kind import Run, failing, healthy
from kind_models import Half, Recurrent, mlp
from torch import nn

# --- the step ------------------------------------------------------------------------------------


@failing("rate-jump", on="relu/sgd residual/sgd gru/adam lm/adamw", fault=80)
def rate_jump(run: Run) -> None:
    """A milestone of the schedule multiplies the learning rate by 100 instead of dividing it."""
    run.schedule(lambda step: 100.0 if step >= run.fault else 1.0)


@failing("rate-ramp", on="tanh/sgd conv/sgd gru/adamw lm/adam", fault=60)
def rate_ramp(run: Run) -> None:
    """A warm-up that never ends: the learning rate grows by 5% in each step."""
    run.schedule(lambda step: 1.05 ** max(step - run.fault, 0.0))


@failing("group-rate-jump", on="relu/sgd relu-numbers/sgd lm/sgd rnn/sgd", fault=80)
def group_rate_jump(run: Run) -> None:
    """The middle layer has a parameter group of its own, and the rate of that group jumps."""
    run.layer, layer = run.middle()
    inside = set(map(id, layer.parameters()))
    groups = [
        {"params": [p for p in run.model.parameters() if id(p) not in inside]},
        {"params": list(layer.parameters())},
    ]
    defaults = {k: v for k, v in run.optimizer.defaults.items() if k in ("lr", "momentum")}
    run.optimize(type(run.optimizer)(groups, **defaults))

    def before(step):
        if step == run.fault:
            run.optimizer.param_groups[1]["lr"] *= 500

    run.before.append(before)


@failing("momentum", on="relu/sgd tanh/nesterov residual/sgd autoencoder/sgd", fault=60)
def momentum(run: Run) -> None:
    """Momentum is raised to 0.999 while the rate stays, so that each gradient counts a hundred times
    as much."""
    run.steps = 350
    for group in run.optimizer.param_groups:
        group["lr"] *= 3

    def before(step):
        if step == run.fault:
            for group in run.optimizer.param_groups:
                group["momentum"] = 0.999

    run.before.append(before)


# --- the target ----------------------------------------------------------------------------------


@failing(
    "target-scale-changes", on="relu-numbers/sgd residual-numbers/adamw conv-numbers/sgd", fault=80
)
def target_scale_changes(run: Run) -> None:
    """From the second file on, the targets are in thousandths of the unit."""
    run.change_batch(lambda step, b: (b[0], b[1] * 1000.0) if step >= run.fault else b)


# --- the start -----------------------------------------------------------------------------------


def scale_weights(modules, factor: float) -> None:
    with torch.no_grad():
        for module in modules:
            module.weight.mul_(factor)


@failing("init-too-large", on="relu/sgd tanh/adamw residual/sgd autoencoder/adam")
def init_too_large(run: Run) -> None:
    """All weights are drawn several times too large."""
    if run.broken:
        scale_weights([m for _, m in run.layers()], 8.0 if run.task.classes else 5.0)


@failing("one-layer-too-large", on="relu/sgd relu-numbers/sgd residual/sgd autoencoder/sgd")
def one_layer_too_large(run: Run) -> None:
    """One layer in the middle is drawn without the root of its width, and then some."""
    run.layer, layer = run.middle()
    if run.broken:
        scale_weights([layer], 200.0)


class Deep(nn.Module):
    """A perceptron of many layers, with or without normalisation."""

    def __init__(self, depth: int, gain: float, norm: type[nn.Module] | None, outputs: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(48 if i else 16, 48) for i in range(depth))
        for layer in self.layers:
            nn.init.normal_(layer.weight, std=gain / layer.in_features**0.5)
        self.norms = nn.ModuleList(norm(48) if norm else nn.Identity() for _ in range(depth))
        self.last = nn.Linear(48, outputs)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(layer(x)).relu()
        return self.last(x)


@failing("no-normalisation", on="relu/sgd relu/adamw relu-numbers/sgd")
def no_normalisation(run: Run) -> None:
    """A deep perceptron whose initialisation relies on the batch norm that somebody took out."""
    norm = None if run.broken else nn.BatchNorm1d
    run.use(Deep(8, 4.0, norm, 4), 3.0)


class Squared(nn.Module):
    def forward(self, x):
        return x.relu().square()


@failing("superlinear-activation", on="relu/sgd relu-numbers/adam autoencoder/sgd")
def superlinear_activation(run: Run) -> None:
    """Squared ReLU in each layer of a plain deep perceptron, where the twin has ReLU."""
    numbers = run.task.held[0].shape[-1], run.task.held[1].shape[-1]
    inputs, outputs = (16, 4) if run.task.classes else numbers
    model = mlp(nn.ReLU, 6, inputs, outputs)
    if run.broken:
        for index in range(1, 12, 2):
            model[index] = Squared()
    run.use(model)


@failing("recurrent-radius", on="rnn/sgd rnn/adamw rnn/rmsprop")
def recurrent_radius(run: Run) -> None:
    """A recurrent layer of ReLU starts with a spectral radius of 2 and not of 1."""
    model = Recurrent(nn.RNN(4, 32, nonlinearity="relu", batch_first=True))
    with torch.no_grad():
        weight = model.cell.weight_hh_l0
        weight.copy_(torch.eye(32) * (2.5 if run.broken else 1.0))
        weight.add_(torch.randn(32, 32) * 0.02)
        model.cell.bias_hh_l0.zero_()
        model.cell.bias_ih_l0.zero_()
    run.use(model, 0.25)
    run.layer = "cell"


# --- the batch -----------------------------------------------------------------------------------


def first_number(x: torch.Tensor, value: float, rows: int = 1) -> torch.Tensor:
    """The first number of the first rows is replaced."""
    x = x.clone()
    x.flatten(1)[:rows, 0] = value
    return x


@failing("large-batch-once", on="relu/sgd residual/sgd autoencoder/sgd gru-numbers/sgd", fault=40)
def large_batch_once(run: Run) -> None:
    """One batch is in other units, ten thousand times as large, with its targets where they are numbers."""

    def change(step, batch):
        x, y = batch
        if step != run.fault:
            return batch
        return x * 1e4, y if run.task.classes else y * 1e4

    run.change_batch(change)


@failing("nan-batch-once", on="relu/sgd residual/adamw conv/sgd gru/adam", fault=70)
def nan_batch_once(run: Run) -> None:
    """One row of one batch has a missing value."""
    run.change_batch(
        lambda step, b: (first_number(b[0], math.nan), b[1]) if step == run.fault else b
    )


@failing("nan-every-hundredth", on="tanh/adamw conv/adam gru/sgd autoencoder/adamw", fault=37)
def nan_every_hundredth(run: Run) -> None:
    """One row of every hundredth batch has a missing value."""

    def change(step, batch):
        bad = step >= run.fault and (step - run.fault) % 100 == 0
        return (first_number(batch[0], math.nan), batch[1]) if bad else batch

    run.change_batch(change)


# --- the layer -----------------------------------------------------------------------------------


@failing("layer-overwritten", on="relu/sgd tanh/sgd residual/sgd autoencoder/adam", fault=80)
def layer_overwritten(run: Run) -> None:
    """Something overwrites the weights of the middle layer, which are then 300 times as large."""
    run.layer, layer = run.middle()

    def before(step):
        if step == run.fault:
            scale_weights([layer], 300.0)

    run.before.append(before)


class Bend(nn.Module):
    """The identity, until it is made superlinear."""

    def __init__(self) -> None:
        super().__init__()
        self.power = 1.0

    def forward(self, x):
        return x if self.power == 1.0 else 3.0 * x.sign() * (x.abs() + 1e-6) ** self.power


@failing("activation-turns-superlinear", on="relu/sgd relu-numbers/sgd autoencoder/sgd", fault=120)
def activation_turns_superlinear(run: Run) -> None:
    """An activation in the middle becomes superlinear, and stays so."""
    bend = Bend()
    layers = list(run.model)
    middle = len(layers) // 2 // 2 * 2
    run.use(nn.Sequential(*layers[:middle], bend, *layers[middle:]))
    run.layer = str(middle)

    def before(step):
        if step == run.fault:
            bend.power = 5.0

    run.before.append(before)


@failing("output-inf-once", on="relu/adamw residual/sgd lm/adamw autoencoder/adam", fault=90)
def output_inf_once(run: Run) -> None:
    """A kernel breaks: the output of the middle layer is Inf in one step."""
    run.layer, layer = run.middle()
    hooks = []

    def before(step):
        if step == run.fault:
            hooks.append(layer.register_forward_hook(lambda m, a, out: out * math.inf))
        elif hooks:
            hooks.pop().remove()

    run.before.append(before)


# --- the number type -----------------------------------------------------------------------------


class Rounded(nn.Module):
    """A layer whose output is kept in 16 bits, in a unit in which it is ``scale`` times as large."""

    def __init__(self, layer: nn.Module, on: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.layer, self.on, self.scale = layer, on, scale

    def forward(self, x):
        out = self.layer(x)
        return Half.apply(out * self.scale) / self.scale if self.on else out


def rounded(model: nn.Sequential, on: bool, scale: float = 1.0, only: int | None = None):
    for index, layer in enumerate(model):
        if isinstance(layer, nn.Linear) and only in (None, index):
            model[index] = Rounded(layer, on, scale)
    return model


@failing("fp16-activation-overflow", on="relu/sgd relu-numbers/adamw autoencoder/adam")
def fp16_activation_overflow(run: Run) -> None:
    """With a scaler, one layer's output passes the largest number of 16 bits in every pass, so that
    every step is skipped; in the twin the layer is kept in 32 bits."""
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    rounded(run.model, run.broken, 1e6, only=4)
    run.layer = "4"


@failing("fp16-without-scaler-check", on="relu/sgd tanh/adamw autoencoder/adamw", fault=60)
def fp16_without_scaler_check(run: Run) -> None:
    """The loss is multiplied by a scale by hand, and nobody looks whether the gradients in 16 bits are
    finite; in one step the scale is too large."""
    rounded(run.model, True)

    def update(step, backward, take_step):
        run.optimizer.zero_grad()
        loss = run.loss(run.batch(step))
        scale = 2.0**30 if step == run.fault else 2.0**10
        backward(loss, scale)
        for p in run.model.parameters():
            if p.grad is not None:
                p.grad /= scale
        take_step()

    run.update = update


# --- the loss ------------------------------------------------------------------------------------


@failing("log-of-zero", on="relu/sgd residual/adamw gru/adam", fault=60)
def log_of_zero(run: Run) -> None:
    """The logarithm of a probability that a mask of allowed classes has set to 0, for a label that
    is not allowed; in the twin there is a floor under it."""
    at = [0]
    run.before.append(lambda step: at.__setitem__(0, step))

    def loss(batch):
        x, y = batch
        allowed = torch.ones(len(y), 4)
        if at[0] % 20 == 19:
            allowed[0, y[0]] = 0.0
        p = run.model(x).softmax(-1) * allowed
        p = p.gather(1, y[:, None])
        broken = run.broken and at[0] >= run.fault
        return -(p if broken else p.clamp(min=1e-6)).log().mean()

    run.loss = loss


# --- healthy runs --------------------------------------------------------------------------------


@healthy(
    "calm", on="relu/sgd tanh/adamw residual/adamw conv/sgd gru/adam lm/adamw autoencoder/adam"
)
def calm(run: Run) -> None:
    """Nothing happens."""


@healthy("own-clipping", on="rnn/sgd rnn/adamw gru/sgd lm/sgd")
def own_clipping(run: Run) -> None:
    """A recurrent network at a high rate, whose gradients the loop clips."""
    for group in run.optimizer.param_groups:
        group["lr"] *= 2
    run.clip = 0.5


@healthy("warm-restarts", on="relu/sgd conv/sgd gru/adamw transformer/adamw")
def warm_restarts(run: Run) -> None:
    """A cosine that restarts every 60 steps."""
    run.schedule(lambda step: 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step % 60) / 60)))


@healthy("sharp-schedule", on="tanh/sgd residual/adamw lm/adam")
def sharp_schedule(run: Run) -> None:
    """A short warm-up, and a tenth of the rate at the end."""
    run.schedule(lambda step: min(1.0, (step + 1) / 20) if step < 180 else 0.1)


@healthy("edge-of-stability", on="tanh/sgd relu/sgd conv/sgd")
def edge_of_stability(run: Run) -> None:
    """Large batches at a rate at which the loss goes up and down while it falls."""
    run.size = 256
    for group in run.optimizer.param_groups:
        group["lr"] *= 4


@healthy("label-noise", on="relu/adamw residual/sgd conv/adamw gru/adam")
def label_noise(run: Run) -> None:
    """Three of ten labels are drawn by chance."""
    g = torch.Generator().manual_seed(77 + run.seed)

    def change(step, batch):
        x, y = batch
        wrong = torch.rand(y.shape, generator=g) < 0.3
        return x, torch.where(wrong, torch.randint(0, 4, y.shape, generator=g), y)

    run.change_batch(change)


@healthy("heavy-tails", on="residual-numbers/adamw conv-numbers/adamw relu-numbers/adam")
def heavy_tails(run: Run) -> None:
    """Targets with noise of Student's t of two degrees, whose variance is infinite."""
    g = torch.Generator().manual_seed(77 + run.seed)

    def change(step, batch):
        x, y = batch
        normal = torch.randn((3, *y.shape), generator=g)
        return x, y + 0.5 * normal[0] / normal[1:].square().mean(0).sqrt().clamp(min=1e-3)

    run.change_batch(change)


@healthy("frozen-backbone", on="residual/adamw conv/sgd lm/adamw")
def frozen_backbone(run: Run) -> None:
    """A body that is trained for a few steps first, then frozen; a new head learns at ten times the
    rate, and at step 150 the last block thaws."""
    for step in range(80):
        run.optimizer.zero_grad()
        run.loss(run.batch(step)).backward()
        run.optimizer.step()
    run.optimizer.zero_grad()
    modules = [m for _, m in run.layers()]
    head, block = modules[-1], modules[-2]
    head.reset_parameters()
    for p in run.model.parameters():
        p.requires_grad_(any(p is own for own in head.parameters()))
    run.use(run.model, 4.0)

    def before(step):
        if step == 150:
            for p in block.parameters():
                p.requires_grad_(True)

    run.before.append(before)


@healthy("tiny-batches", on="relu/sgd residual/adamw gru/adam lm/sgd")
def tiny_batches(run: Run) -> None:
    """Two to four samples in a batch."""
    run.size = 4
    run.steps = 400
    for group in run.optimizer.param_groups:
        group["lr"] *= 0.5


@healthy("task-change", on="relu/sgd residual/adamw conv/sgd gru/adam")
def task_change(run: Run) -> None:
    """At step 120 the classes change places."""
    run.steps = 350
    run.change_batch(lambda step, b: (b[0], (b[1] + 1) % 4) if step >= 120 else b)
    x, y = run.task.held
    run.task.held = x, (y + 1) % 4


@healthy("dropout-heavy", on="relu/sgd conv/adamw tanh/adamw")
def dropout_heavy(run: Run) -> None:
    """Dropout of 0.3 to 0.5 after each activation."""
    layers = []
    for layer in run.model:
        layers.append(layer)
        if isinstance(layer, (nn.ReLU, nn.Tanh)):
            layers.append(nn.Dropout(0.5 if isinstance(run.model[0], nn.Conv2d) else 0.2))
    run.use(nn.Sequential(*layers))


@healthy("accumulation", on="relu/sgd residual/adamw tanh/sgd")
def accumulation(run: Run) -> None:
    """Gradients of four micro-batches are added up."""
    run.size = 8
    run.steps = 200

    def update(step, backward, take_step):
        run.optimizer.zero_grad()
        for _ in range(4):
            backward(run.loss(run.batch(step)), 0.25)
        take_step()

    run.update = update


@healthy("hard-batch", on="relu/sgd residual/adamw tanh/adamw gru/adam")
def hard_batch(run: Run) -> None:
    """The inputs of one batch are three times as large."""
    run.change_batch(lambda step, b: (b[0] * 3, b[1]) if step == 150 else b)


@healthy("scaler-skips", on="relu/sgd residual/adamw gru/adam")
def scaler_skips(run: Run) -> None:
    """The first scale of the loss is so large that the scaler skips steps until it fits."""
    run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
