"""The second half of the kinds of runs: growth, singular losses, optimizer state, adversaries and values."""

from __future__ import annotations

import copy
import math

import torch
from kind import Run, failing, healthy
from kind_models import Adversaries, Transformer, sequence_answers
from torch import nn
from torch.nn import functional as F


def scale_rates(run: Run, factor: float) -> None:
    for group in run.optimizer.param_groups:
        group["lr"] *= factor


# --- growth --------------------------------------------------------------------------------------


@failing("weight-decay-sign", on="relu/sgd gru/adam lm/adam autoencoder/adam")
def weight_decay_sign(run: Run) -> None:
    """Decoupled weight decay by hand, with the wrong sign: each step makes the weights 3% larger."""
    factor = 1.03 if run.broken else 1 - 1e-4

    def after(step):
        with torch.no_grad():
            for p in run.model.parameters():
                p.mul_(factor)

    run.after.append(after)


@failing("attention-logits-grow", on="lm/adamw lm/sgd transformer/adam", fault=60)
def attention_logits_grow(run: Run) -> None:
    """The temperature of the first attention is annealed for ever, until its logits, in 16 bits, are
    infinite."""
    attention = run.model.blocks[0]["attention"]
    run.layer = "blocks.0.attention"
    scale, attention.half = attention.scale, True

    def before(step):
        attention.scale = scale * 1.1 ** max(step - run.fault, 0.0)

    run.before.append(before)


class Stream(nn.Module):
    """Residual blocks, whose sum is normalised before each block or not at all."""

    def __init__(self, blocks: int, norm: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(16, 48), nn.Linear(48, 4)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(48) if norm else nn.Identity(),
                nn.Linear(48, 96),
                nn.ReLU(),
                nn.Linear(96, 48),
            )
            for _ in range(blocks)
        )
        for block in self.blocks:
            nn.init.kaiming_normal_(block[1].weight)
            nn.init.kaiming_normal_(block[3].weight)

    def forward(self, x):
        h = self.first(x)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


@failing("residual-stream-grows", on="residual/sgd residual/adamw residual/rmsprop")
def residual_stream_grows(run: Run) -> None:
    """Twelve residual blocks add to the stream, and nothing normalises what they read."""
    run.use(Stream(12, norm=not run.broken), 0.5)


# --- the start -----------------------------------------------------------------------------------


@failing("label-scale", on="relu-numbers/sgd residual-numbers/adamw gru-numbers/adam")
def label_scale(run: Run) -> None:
    """The targets are in the wrong unit from the start, a thousand times as large."""
    if run.broken:
        run.change_batch(lambda step, b: (b[0], b[1] * 1000.0))
        x, y = run.task.held
        run.task.held = x, y * 1000.0


@failing("init-too-large-finite", on="tanh/sgd gru/adam transformer/adamw lm/sgd")
def init_too_large_finite(run: Run) -> None:
    """All weights are twenty times too large, but everything is bounded: the loss starts high."""
    if run.broken:
        with torch.no_grad():
            for p in run.model.parameters():
                if p.dim() > 1:
                    p.mul_(20.0)


# --- the batch -----------------------------------------------------------------------------------


@failing("inf-batch", on="tanh/sgd residual/adamw conv/adam gru/sgd", fault=90)
def inf_batch(run: Run) -> None:
    """A column of one batch is infinite, after a division by a spread of 0."""

    def change(step, batch):
        x, y = batch
        if step == run.fault:
            x = x.clone()
            x[..., 0] = math.inf
        return x, y

    run.change_batch(change)


@failing(
    "sentinel-labels",
    on="relu-numbers/sgd residual-numbers/sgd gru-numbers/sgd conv-numbers/sgd",
    fault=60,
)
def sentinel_labels(run: Run) -> None:
    """For eight batches, half of the labels are 9999, which stands for a missing one."""

    def change(step, batch):
        x, y = batch
        if run.fault <= step < run.fault + 8:
            y = y.clone()
            y[::2] = 9999.0
        return x, y

    run.change_batch(change)


@failing("summed-loss", on="relu/sgd residual/sgd autoencoder/sgd lm/sgd", fault=100)
def summed_loss(run: Run) -> None:
    """The loss is summed over the batch, at a rate for batches of 32; from some step on, batches are
    of any size up to 2048."""
    g = torch.Generator().manual_seed(50 + run.seed)
    usual = run.loss

    def batch(step):
        count = int(torch.randint(3, 12, (), generator=g)) if step >= 100 else 5
        if step >= 100 and step % 10 == 0:
            count = 11
        # In the language, a batch has at most 128 rows.
        return run.task.draw(2**count)

    def loss(batch):
        return usual(batch) * (len(batch[0]) / 32 if run.broken else 1.0)

    run.batch, run.loss = batch, loss


# --- the loss ------------------------------------------------------------------------------------


class Pooled(nn.Module):
    """Attention from one query over the tokens that are not padding, 0."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 32)
        self.value, self.ask = nn.Linear(32, 32), nn.Linear(32, 1)
        self.head = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 4))

    def forward(self, x):
        h = self.embed(x)
        logits = self.ask(h).masked_fill((x == 0)[..., None], -math.inf)
        return self.head((logits.softmax(1) * self.value(h)).sum(1))


@failing("masked-rows", on="transformer/sgd transformer/adamw transformer/rmsprop", fault=75)
def masked_rows(run: Run) -> None:
    """An attention with a mask for padding; every fifteenth batch has a row that is padding throughout."""
    run.use(Pooled())

    def change(step, batch):
        x, y = batch
        if step >= run.fault and step % 15 == 0:
            x = x.clone()
            x[3] = 0
        return x, y

    run.change_batch(change)


@failing("root-of-zero", on="relu/sgd residual/adamw autoencoder/adam tanh/adam", fault=60)
def root_of_zero(run: Run) -> None:
    """A term keeps the outputs for neighbours apart by the root of their squared distance, and now and
    then a sample is in the batch twice."""
    usual = run.loss

    def change(step, batch):
        x, y = (part.clone() for part in batch)
        if step >= 60 and step % 12 == 0:
            x[1], y[1] = x[0], y[0]
        return x, y

    def loss(batch):
        out = run.model(batch[0])
        squared = (out[1:] - out[:-1]).square().sum(-1)
        apart = (squared if run.broken else squared + 1e-6).sqrt()
        return usual(batch) - 0.01 * apart.clamp(max=1.0).mean()

    run.change_batch(change)
    run.loss = loss


@failing("loss-weight-grows", on="relu/sgd residual/sgd conv/sgd gru/adam", fault=60)
def loss_weight_grows(run: Run) -> None:
    """The weight of a penalty on the outputs is annealed without an end."""
    weight = [0.0]
    usual = run.loss
    run.before.append(lambda step: weight.__setitem__(0, 1e-3 * 1.1 ** max(step - run.fault, 0.0)))
    run.loss = lambda b: usual(b) + weight[0] * run.model(b[0]).square().mean()


@failing("loss-weight", on="relu/sgd tanh/sgd residual/sgd lm/sgd")
def loss_weight(run: Run) -> None:
    """The weight of the loss is a thousand times too large, at a rate for the right one."""
    usual = run.loss
    run.loss = lambda b: usual(b) * (1000.0 if run.broken else 1.0)


# --- the optimizer -------------------------------------------------------------------------------


@failing("resumed-without-state", on="relu/adagrad residual/adagrad lm/adagrad", fault=100)
def resumed_without_state(run: Run) -> None:
    """A high rate that a warm-up has led to; the run is resumed without the optimizer's state, whose
    new estimate of the second moment knows one gradient, and without the warm-up."""
    scale_rates(run, 10.0)
    run.schedule(lambda step: min(1.0, (step + 1) / 60) ** 2)

    def before(step):
        if step == run.fault:
            for state in run.optimizer.state.values():
                state["sum"].zero_()

    run.before.append(before)


@failing("restart-too-high", on="relu/sgd residual/sgd lm/sgd tanh/sgd", fault=100)
def restart_too_high(run: Run) -> None:
    """A cosine restarts at a hundred times the first rate, and comes down again within 60 steps."""

    def factor(step):
        within = step - run.fault
        if not 0 <= within < 60:
            return 1.0 if step < 200 else 0.3
        return 1.0 + 100.0 * 0.5 * (1 + math.cos(math.pi * within / 60))

    run.schedule(factor)


@failing("second-moment-too-slow", on="relu/adam residual/adam tanh/adamw", fault=100)
def second_moment_too_slow(run: Run) -> None:
    """A high rate with betas of 0.9 and 0.9999, and rare batches that are harder."""
    betas = (0.9, 0.9999) if run.broken else (0.9, 0.95)
    run.optimize(torch.optim.Adam(run.model.parameters(), lr=0.01, betas=betas))

    def change(step, batch):
        x, y = batch
        return (x * 30.0, y) if step >= 100 and step % 25 == 0 else batch

    run.change_batch(change)


@failing("sixteen-bit-weights", on="relu/adamw tanh/adam autoencoder/adam")
def sixteen_bit_weights(run: Run) -> None:
    """Weights and moments in 16 bits, where the optimizer's eps and small squares are 0."""
    if run.broken:
        run.use(run.model.half())
        usual = run.task.loss
        run.task.held = tuple(p.half() if p.is_floating_point() else p for p in run.task.held)
        run.loss = lambda b: usual(
            run.model(b[0].half()), b[1] if run.task.classes else b[1].half()
        )


# --- adversaries and values ----------------------------------------------------------------------


def adversaries(run: Run, rates: tuple[float, float]) -> Adversaries:
    """Two parts, each with its optimizer: the critic first."""
    run.size = 64
    both = run.model
    pairs = zip((both.critic, both.generator), rates, strict=True)
    if run.optimizer_name == "adam":
        run.parts = [(m, torch.optim.Adam(m.parameters(), r, betas=(0.5, 0.9))) for m, r in pairs]
    else:
        run.parts = [(m, torch.optim.RMSprop(m.parameters(), r / 2)) for m, r in pairs]
    run.optimizer = run.parts[0][1]
    run.loss_is_log = True

    def score():
        made, (real, _) = both(torch.randn(512, 4)), run.task.held
        if not bool(torch.isfinite(made).all()):
            return 0.0
        mean, spread = real.mean(0), real.std(0)
        apart = (made.mean(0) - mean).norm() + (made.std(0) - spread).norm()
        return max(0.0, 1.0 - float(apart / (mean.norm() + spread.norm())))

    run.score = score
    return both


def play(run: Run, both: Adversaries, critic_loss, generator_loss, critic_steps: int = 1) -> None:
    """Steps of the critic and one of the generator."""

    def update(step, backward, take_step):
        for _ in range(critic_steps):
            real = run.batch(step)[0]
            with torch.no_grad():
                false = both(torch.randn(len(real), 4))
            run.parts[0][1].zero_grad()
            backward(critic_loss(both.critic(real), both.critic(false)))
            take_step()
        run.parts[1][1].zero_grad()
        backward(generator_loss(both.critic(both(torch.randn(len(real), 4)))), part=1)
        take_step(part=1)

    run.update = update


@failing("critic-unbounded", on="points/adam points/rmsprop")
def critic_unbounded(run: Run) -> None:
    """A Wasserstein critic without anything that bounds its slope; the twin's weights are clamped."""
    both = adversaries(run, (0.01, 0.002))
    play(run, both, lambda real, false: false.mean() - real.mean(), lambda out: -out.mean(), 2)

    def after(step):
        with torch.no_grad():
            for p in both.critic.parameters():
                p.clamp_(-0.15, 0.15)

    if not run.broken:
        run.after.append(after)


@failing("discriminator-collapse", on="points/adam points/rmsprop", fault=40)
def discriminator_collapse(run: Run) -> None:
    """The rate of the discriminator becomes a thousand times as high before the generator has learned:
    its logits grow without limit, and the loss of the generator with them."""
    both = adversaries(run, (2e-3, 2e-3))
    play(
        run,
        both,
        lambda real, false: F.softplus(-real).mean() + F.softplus(false).mean(),
        lambda out: F.softplus(-out).mean(),
    )

    def before(step):
        if step == run.fault:
            run.parts[0][1].param_groups[0]["lr"] *= 1000

    run.before.append(before)


@failing("values-diverge", on="relu-numbers/sgd relu-numbers/adam residual-numbers/adamw", fault=50)
def values_diverge(run: Run) -> None:
    """Values are learned from themselves, with rewards of heavy tails; from some step on the discount
    is left out and a bonus is multiplied in, so that each value aims above the next."""
    g = torch.Generator().manual_seed(60 + run.seed)
    at = [0]
    run.before.append(lambda step: at.__setitem__(0, step))

    def loss(batch):
        x, y = batch
        noise = torch.randn((4, *y.shape), generator=g)
        reward = y + 0.1 * noise[0] / noise[1:].square().mean(0).sqrt()
        with torch.no_grad():
            following = run.model(x.roll(1, 0) + 0.0)
        discount = 1.5 if at[0] >= run.fault else 0.5
        return F.mse_loss(run.model(x), reward + discount * following)

    run.loss = loss

    def score():
        x, y = run.task.held
        out = run.model(x)
        if not bool(torch.isfinite(out).all()):
            return 0.0
        left = (out - out.mean(0) - y + y.mean(0)).double().square().mean()
        return max(0.0, 1.0 - float(left) / float(y.double().var()))

    run.score = score


# --- healthy runs --------------------------------------------------------------------------------


@healthy("cyclic-rates", on="relu/sgd conv/sgd residual/adamw lm/adamw")
def cyclic_rates(run: Run) -> None:
    """The rate goes from a fifth to twice its value and back every 50 steps."""
    run.schedule(lambda step: 0.2 + 1.8 * (1 - abs((step % 50) / 25 - 1)))


@healthy("gan", on="points/adam points/rmsprop")
def gan(run: Run) -> None:
    """Generator and discriminator in balance, each with an optimizer and a guard."""
    both = adversaries(run, (2e-3, 2e-3))
    run.steps = 400
    play(
        run,
        both,
        lambda real, false: F.softplus(-real).mean() + F.softplus(false).mean(),
        lambda out: F.softplus(-out).mean(),
    )


class ActorCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, 4), nn.Linear(64, 1)

    def forward(self, x):
        return self.policy(self.body(x))


@healthy("ppo", on="tanh/adam tanh/rmsprop")
def ppo(run: Run) -> None:
    """Proximal policy optimization of a choice among four: rewards with noise, four epochs on each
    rollout, the clip of its gradients that is usual there."""
    run.use(ActorCritic(), 3.0)
    run.clip = 0.5
    run.steps = 240
    model = run.model
    rollout: list[torch.Tensor] = []

    def update(step, backward, take_step):
        if step % 4 == 0:
            x, best = run.task.draw(128)
            with torch.no_grad():
                policy = torch.distributions.Categorical(logits=model(x))
                taken = policy.sample()
                reward = (taken == best).float() * 3 + 0.5 * torch.randn(128)
                gain = reward - model.value(model.body(x)).squeeze(-1)
            rollout[:] = x, taken, policy.log_prob(taken), reward, (gain - gain.mean()) / gain.std()
        x, taken, old, reward, gain = rollout
        policy = torch.distributions.Categorical(logits=model(x))
        ratio = (policy.log_prob(taken) - old).exp()
        gained = torch.minimum(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
        value = model.value(model.body(x)).squeeze(-1)
        run.optimizer.zero_grad()
        backward(-gained + 0.5 * F.mse_loss(value, reward) - 0.01 * policy.entropy().mean())
        take_step()

    run.update = update


@healthy("lbfgs", on="tanh/lbfgs autoencoder/lbfgs")
def lbfgs(run: Run) -> None:
    """A quasi-Newton method with line search on the whole of the data."""
    run.steps = 60
    data = run.task.draw(512)

    def update(step, backward, take_step):
        def closure():
            run.optimizer.zero_grad()
            loss = run.loss(data)
            backward(loss)
            return loss

        take_step(closure)

    run.update = update


@healthy("curriculum", on="gru/adam rnn/adamw gru/sgd")
def curriculum(run: Run) -> None:
    """Short sequences first; every 40 steps they become longer."""

    def change(step, batch):
        x = batch[0].clone()
        x[:, : max(0, 12 - 3 * (step // 40))] = 0.0
        return x, sequence_answers(x).argmax(-1)

    run.change_batch(change)


@healthy("plateau", on="relu/adam tanh/adamw relu-numbers/adam")
def plateau(run: Run) -> None:
    """Weights are so small at the start that nothing is learned for a while; then the loss drops."""
    with torch.no_grad():
        for _, layer in run.layers():
            layer.weight.mul_(0.4)
    run.steps = 350


@healthy("tied-weights", on="lm/adamw lm/sgd")
def tied_weights(run: Run) -> None:
    """A language model whose head is its embedding."""
    model = Transformer(16, 24, 16, causal=True)
    nn.init.normal_(model.embed.weight, std=0.1)
    model.head.weight = model.embed.weight
    run.use(model)


@healthy("loss-terms", on="relu/sgd residual/adamw conv/adam")
def loss_terms(run: Run) -> None:
    """A penalty on the outputs that starts late, grows and ends, as its schedule says."""
    weight = [0.0]
    usual = run.loss
    run.before.append(
        lambda step: weight.__setitem__(0, 0.3 * max(0.0, min(step - 80, 180 - step, 40)) / 40)
    )
    run.loss = lambda b: usual(b) + weight[0] * run.model(b[0]).square().mean()


@healthy("mean-teacher", on="relu/sgd residual/adamw gru/adam")
def mean_teacher(run: Run) -> None:
    """A running mean of the model teaches it on inputs with noise."""
    teacher = copy.deepcopy(run.model)
    at = [0]
    run.before.append(lambda step: at.__setitem__(0, step))

    def loss(batch):
        x, y = batch
        with torch.no_grad():
            wanted = teacher(x).softmax(-1)
        noisy = run.model(x + 0.2 * torch.randn_like(x))
        agree = F.mse_loss(noisy.softmax(-1), wanted)
        return F.cross_entropy(noisy, y) + min(at[0] / 50, 1.0) * agree

    def after(step):
        with torch.no_grad():
            for mean, p in zip(teacher.parameters(), run.model.parameters(), strict=True):
                mean.lerp_(p, 0.05)

    run.loss = loss
    run.after.append(after)


@healthy("resumed", on="relu/sgd residual/adamw lm/adamw")
def resumed(run: Run) -> None:
    """The optimizer's state is lost in the middle, at a rate that bears it."""

    def before(step):
        if step == 120:
            run.optimizer.state.clear()

    run.before.append(before)


@healthy("long-tail-classes", on="relu/sgd residual/adamw conv/sgd")
def long_tail_classes(run: Run) -> None:
    """Most batches lack one class; every thirtieth is made of it alone."""

    def change(step, batch):
        x, y = run.task.draw(256)
        rare = y == 3
        own = rare if step % 30 == 29 else ~rare
        return x[own][:32], y[own][:32]

    run.change_batch(change)
    x, y = run.task.held
    common = y != 3
    run.task.held = x[common], y[common]
