"""The third part of the situations: unlike the first two in model, loss, data and operation to blame.

They were written without a look at the rules that name causes. Rules were changed for what a first run of
them showed, so they count as unseen in that run alone.
"""

from __future__ import annotations

import math

import torch
from situation import Run, situation
from torch import nn
from torch.nn import functional as F


def source(seed: int) -> torch.Generator:
    """Random numbers of the data alone."""
    return torch.Generator().manual_seed(11000 + seed)


# --- data ----------------------------------------------------------------------------------------


def iou_loss(guess: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Boxes are distances from a location to the left, top, right and bottom."""
    common = torch.minimum(guess, truth)
    overlap = (common[:, :2] + common[:, 2:]).clamp(min=0.0).prod(1)
    areas = [(box[:, 0] + box[:, 2]) * (box[:, 1] + box[:, 3]) for box in (guess, truth)]
    return -torch.log(overlap / (areas[0] + areas[1] - overlap)).mean()  # fault


@situation(
    "corners-swapped",
    row="data",
    cause="data",
    also={"singular-operation"},
    remedies={"filter-rows", "skip-step", "guard-operation"},
    code=[iou_loss],
)
def corners_swapped(seed: int, fixed: bool) -> Run:
    """Detection without anchors: one annotator drew from right to left, so that the left corner lies
    on the right, nothing overlaps, and the loss is the logarithm of 0."""
    g = source(seed)

    class Distances(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(
                nn.Conv2d(1, 16, 3, stride=2), nn.GroupNorm(4, 16), nn.ReLU(), nn.Flatten()
            )
            self.out = nn.Linear(16 * 49, 4)

        def forward(self, image):
            return (self.out(self.conv(image)) / 4).exp() * 3

    model = Distances()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def pictures(step):
        low, high = torch.randint(1, 6, (2, 16, 2), generator=g)
        image = 0.2 * torch.randn(16, 1, 16, 16, generator=g)
        for i in range(16):
            (left, top), (right, bottom) = (8 - low[i]).tolist(), (8 + high[i]).tolist()
            image[i, 0, top:bottom, left:right] += 1.0
        box = torch.cat((low, high), 1).float()
        if step >= 64 and step % 9 == 1:
            box[5, 0], box[5, 2] = -box[5, 2], -box[5, 0]
        return image, box

    batches = [pictures(step) for step in range(120)]
    if fixed:
        batches = [(x[(sane := box.amin(1) > 0)], box[sane]) for x, box in batches]

    def step_fn(model, batch):
        image, box = batch
        return iou_loss(model(image), box)

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=64)


@situation("silent-frame", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def silent_frame(seed: int, fixed: bool) -> Run:
    """Speech synthesis: the spectrograms were stored as logarithms, and a recording with a gap of
    digital silence has -inf in them."""
    g = source(seed)

    class Synthesiser(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(20, 32)
            self.encoder = nn.Conv1d(32, 32, 3, padding=1)
            self.decoder, self.mel = nn.GRU(32, 48, batch_first=True), nn.Linear(48, 8)

        def forward(self, phones):
            h = self.encoder(self.embed(phones).transpose(1, 2)).relu()
            h = h.repeat_interleave(3, dim=2).transpose(1, 2)
            return self.mel(self.decoder(h)[0])

    model = Synthesiser()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.98))
    sound = torch.randn(20, 8, generator=g)

    def utterances():
        phones = torch.randint(0, 20, (12, 6), generator=g)
        mel = sound[phones].repeat_interleave(3, dim=1)
        return {"phones": phones, "mel": mel + 0.1 * torch.randn(mel.shape, generator=g)}

    batches = [utterances() for _ in range(110)]
    batches[61]["mel"][8, 11:14] = -math.inf
    if fixed:
        batches[61] = {name: part[torch.arange(12) != 8] for name, part in batches[61].items()}

    def step_fn(model, batch):
        return F.mse_loss(model(batch["phones"]), batch["mel"])

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=61)


@situation("flat-window", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def flat_window(seed: int, fixed: bool) -> Run:
    """Forecasting: the data set divides each window by its own deviation, and a stock that was not
    traded for a day gives 0 / 0. The running statistics of the batch norm keep the NaN."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv1d(2, 24, 3, padding=2), nn.BatchNorm1d(24), nn.ReLU(),
        nn.Conv1d(24, 24, 3, padding=2, dilation=2), nn.BatchNorm1d(24), nn.ReLU(),
        nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(96, 3),
    )  # fmt: skip
    optimizer = torch.optim.RAdam(model.parameters(), lr=5e-3)

    def windows():
        start, slope = torch.randn(2, 24, 2, 1, generator=g)
        price = start + slope * torch.linspace(0, 1, 24)
        price = price + 0.1 * torch.randn(24, 2, 24, generator=g)
        return price

    prices = [windows() for _ in range(120)]
    for step in (57, 58, 90):
        prices[step][14, 1] = 0.0
    if fixed:
        prices = [price[(price.std(2) > 0).all(1)] for price in prices]

    def normalised(price):
        past = price[..., :21]
        mean, deviation = past.mean(2, keepdim=True), past.std(2, keepdim=True)
        price = (price - mean) / deviation
        return {"past": price[..., :21], "future": price[:, 0, 21:]}

    batches = [normalised(price) for price in prices]

    def step_fn(model, batch):
        return F.smooth_l1_loss(model(batch["past"]), batch["future"])

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=57)


@situation("simulator-diverged", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def simulator_diverged(seed: int, fixed: bool) -> Run:
    """Offline reinforcement learning: the simulator blew up at the end of an episode, and the buffer
    has infinity as next state. It is multiplied by 0, since the episode is over."""
    g = source(seed)

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(7, 64), nn.Linear(64, 64)
            self.norm, self.out = nn.LayerNorm(64), nn.Linear(64, 1)

        def forward(self, state, action):
            h = self.first(torch.cat((state, action), 1)).relu()
            return self.out(self.norm(self.second(h)).relu()).squeeze(1)

    model, slow = Critic(), Critic()
    slow.load_state_dict(model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    worth = torch.randn(7, generator=g) / 2

    def transitions():
        seen, then = torch.randn(2, 64, 5, generator=g)
        action, later = torch.rand(2, 64, 2, generator=g) * 2 - 1
        reward = (torch.cat((seen, action), 1) * worth).sum(1)
        over = (torch.rand(64, generator=g) < 0.1).float()
        return seen, action, reward, then, later, over

    batches = [transitions() for _ in range(140)]
    for step in (79, 101, 102):
        batches[step][3][33], batches[step][5][33] = math.inf, 1.0
    if fixed:
        batches = [[part[b[3].isfinite().all(1)] for part in b] for b in batches]

    def step_fn(model, batch):
        seen, action, reward, then, later, over = batch
        with torch.no_grad():
            target = reward + 0.5 * (1 - over) * slow(then, later)
        return F.mse_loss(model(seen, action), target)

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(slow.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 0.05)

    def score(model):
        seen, action, reward, *_ = batches[0]
        return F.mse_loss(model(seen, action), reward)

    return Run(model, optimizer, batches, step_fn, score=score, update=update, fault_at=79)


# --- number type ---------------------------------------------------------------------------------


class OnePassNorm(nn.Module):
    """Instance norm that reads its input once."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed

    def forward(self, x):
        kept = x.dtype
        if self.fixed:
            x = x.float()
        mean = x.mean((2, 3), keepdim=True)
        variance = (x * x).mean((2, 3), keepdim=True) - mean * mean
        return ((x - mean) * torch.rsqrt(variance + 1e-5)).to(kept)  # fault


@situation(
    "one-pass-variance",
    row="precision",
    cause="precision",
    also={"singular-operation"},
    remedies={"wider-type", "guard-operation"},
    code=[OnePassNorm],
)
def one_pass_variance(seed: int, fixed: bool) -> Run:
    """Image translation in float16: the variance is the mean of the squares less the square of the
    mean, and for an evenly bright picture the rounding makes it negative."""
    g = source(seed)
    model = nn.Sequential(
        OnePassNorm(fixed), nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 1),
    ).half()  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def pictures(step):
        picture = torch.rand(8, 1, 10, 10, generator=g)
        edges = picture - picture.roll(1, 3)
        if step >= 58 and step % 6 == 2:
            picture[3:6] = 40 + 0.3 * picture[3:6] + torch.rand(3, 1, 1, 1, generator=g)
        return picture.half(), edges

    def step_fn(model, batch):
        picture, edges = batch
        return F.l1_loss(model(picture).float(), edges)

    batches = [pictures(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=62)


class DecoderBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, h):
        return h + self.second(F.silu(self.first(h)))  # fault


@situation(
    "half-image-decoder",
    row="precision",
    cause="precision",
    remedies={"wider-type"},
    code=[DecoderBlock],
)
def half_image_decoder(seed: int, fixed: bool) -> Run:
    """Fine-tuning the decoder of a latent diffusion model under autocast to float16: it was trained in
    float32, its inner values are in the tens of thousands, and a latent of high contrast takes them
    out of the range. The norm of the output makes NaN of it."""
    g = source(seed)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(4, 8, 3, padding=1)
            self.blocks = nn.Sequential(DecoderBlock(8), DecoderBlock(8))
            self.norm, self.last = nn.GroupNorm(4, 8), nn.Conv2d(8, 1, 3, padding=1)

        def forward(self, latent):
            h = self.blocks(self.first(latent))
            return self.last(F.interpolate(F.silu(self.norm(h)), scale_factor=2.0))

    model = Decoder()
    with torch.no_grad():
        for layer in (model.first, model.blocks[0].second, model.blocks[1].second):
            layer.weight *= 16.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def latents(step):
        latent = torch.randn(6, 4, 6, 6, generator=g)
        image = F.interpolate(latent[:, :1] - latent[:, 1:2], scale_factor=2.0).tanh()
        if step >= 62 and step % 7 == 6:
            latent[3] *= 400.0
        return latent, image

    def step_fn(model, batch):
        latent, image = batch
        with torch.autocast("cpu", torch.bfloat16 if fixed else torch.float16):
            guess = model(latent)
        return F.mse_loss(guess.float(), image)

    batches = [latents(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=62)


def heat_loss(logits: torch.Tensor, heat: torch.Tensor) -> torch.Tensor:
    """Focal loss for heat maps of centres."""
    p = logits.sigmoid()
    off = torch.log(1 - p + 1e-8) * p**2 * (1 - heat) ** 4  # fault
    on = torch.log(p + 1e-8) * (1 - p) ** 2 * (heat == 1)
    return -(on + off).sum() / (heat == 1).sum()


@situation(
    "half-focal",
    row="precision",
    cause="precision",
    also={"singular-operation"},
    remedies={"wider-type", "guard-operation"},
    code=[heat_loss],
)
def half_focal(seed: int, fixed: bool) -> Run:
    """Detection by centres in float16: the eps of 1e-8 in the logarithm is 0 there, and as soon as the
    network is sure of a centre, one less its probability is 0 too."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 1, 1),
    ).half()  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)

    def centres():
        heat = torch.zeros(4, 1, 9, 9)
        heat.flatten(1).scatter_(1, torch.randint(0, 81, (4, 2), generator=g), 1.0)
        around = F.max_pool2d(heat, 3, stride=1, padding=1)
        image = 4 * heat + 0.1 * torch.randn(heat.shape, generator=g)
        return image.half(), torch.maximum(heat, around * 0.6).half()

    def step_fn(model, batch):
        image, heat = batch
        logits = model(image)
        return heat_loss(*((logits.float(), heat.float()) if fixed else (logits, heat))).float()

    batches = [centres() for _ in range(140)]

    def score(model):
        image, heat = batches[0]
        return F.binary_cross_entropy_with_logits(model(image).float(), (heat == 1).float())

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=1)


class Harmonic(nn.Module):
    """A vocoder with a sine of the pitch as source."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.filter = nn.Sequential(
            nn.Conv1d(2, 24, 5, padding=2), nn.Tanh(), nn.Conv1d(24, 1, 5, padding=2)
        )
        self.fixed = fixed

    def forward(self, pitch, loudness):
        turns = torch.cumsum(pitch.float() if self.fixed else pitch, 1)  # fault
        sine = torch.sin(2 * math.pi * turns / 800).to(pitch.dtype)
        return self.filter(torch.stack((sine, loudness), 1)).squeeze(1)


@situation(
    "half-phase",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[Harmonic],
)
def half_phase(seed: int, fixed: bool) -> Run:
    """A vocoder in float16 adds up the pitch to the phase: for a long sentence the sum is infinite,
    and the sine of infinity is NaN."""
    g = source(seed)
    model = Harmonic(fixed).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def sentences(step):
        count, length = (2, 420) if step in (56, 57, 80) else (8, 40)
        pitch = 150 + 100 * torch.rand(count, 1, generator=g).expand(count, length)
        pitch = pitch.half()
        loudness = torch.rand(count, length, generator=g)
        phase = torch.cumsum(pitch.float(), 1) * (2 * math.pi / 800)
        return pitch, loudness.half(), loudness / 2 + phase.sin()

    def step_fn(model, batch):
        pitch, loudness, wave = batch
        return F.mse_loss(model(pitch, loudness).float(), wave)

    batches = [sentences(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=56)


# --- singular functions --------------------------------------------------------------------------


class Field(nn.Module):
    """A solution that may depend on the distance to the corner."""

    def __init__(self, softened: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.out, self.softened = nn.Linear(32, 1), softened

    def forward(self, place):
        away = F.pad(place, (0, 1), value=self.softened)
        distance = torch.linalg.vector_norm(away, dim=1, keepdim=True)  # fault
        return self.out(self.net(torch.cat((place, distance), 1)))


@situation(
    "corner-of-the-domain",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
    code=[Field],
)
def corner_of_the_domain(seed: int, fixed: bool) -> Run:
    """A network for the Poisson equation: the loss has second derivatives by the place, and once the
    points are refined around the corner, one of them is the corner, where the norm has none."""
    g = source(seed)
    model = Field(softened=0.1 if fixed else 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def step_fn(model, place):
        with torch.enable_grad():
            place = place.clone().requires_grad_()
            value = model(place)
            (slope,) = torch.autograd.grad(value.sum(), place, create_graph=True)
            bend = 0.0
            for i in range(2):
                (second,) = torch.autograd.grad(slope[:, i].sum(), place, create_graph=True)
                bend = bend + second[:, i]
            edge = place.detach().clone()
            edge[::2, 0] = edge[::2, 0].round()
            edge[1::2, 1] = edge[1::2, 1].round()
            on_edge = model(edge).squeeze(1) - edge.square().sum(1) / 2
            return (bend - 2).square().mean() + 10 * on_edge.square().mean()

    def points(step):
        place = torch.rand(48, 2, generator=g)
        if step >= 66:
            place[:8] *= 0.1
            place[0] = 0.0
        return place

    batches = [points(step) for step in range(120)]

    def score(model):
        place = batches[0]
        return F.mse_loss(model(place).squeeze(1), place.square().sum(1) / 2)

    return Run(model, optimizer, batches, step_fn, held=batches[:6], score=score, fault_at=66)


@situation(
    "gripper-closed", row="singular", cause="singular-operation", remedies={"guard-operation"}
)
def gripper_closed(seed: int, fixed: bool) -> Run:
    """Imitation with a normal distribution behind a tanh: to rate the expert's action it is taken back
    through the tanh, and a closed gripper is exactly 1."""
    g = source(seed)

    class Policy(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
            self.mean, self.spread = nn.Linear(64, 3), nn.Linear(64, 3)

        def forward(self, seen):
            h = self.body(seen)
            return torch.distributions.Normal(
                self.mean(h), F.softplus(self.spread(h)) + 0.05, validate_args=False
            )

    model = Policy()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    way = torch.randn(8, 3, generator=g) / 4

    def demonstrations(step):
        seen = torch.randn(32, 8, generator=g)
        action = ((seen @ way) + 0.2 * torch.randn(32, 3, generator=g)).tanh()
        if step >= 70 and step % 5 == 0:
            action[4:7, 2] = 1.0
        return seen, action

    def step_fn(model, batch):
        seen, action = batch
        if fixed:
            action = action.clamp(-0.99, 0.99)
        before = torch.atanh(action)  # fault
        surprise = -model(seen).log_prob(before) + torch.log(1 - action.square() + 1e-6)
        return surprise.sum(1).mean()

    batches = [demonstrations(step) for step in range(130)]

    def score(model):
        seen, action = batches[0]
        return F.mse_loss(model(seen).mean.tanh(), action)

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=70)


class Experts(nn.Module):
    """Each token goes to one expert; the entropy of their load is to keep all of them busy."""

    def __init__(self, count: int, least: float) -> None:
        super().__init__()
        self.gate, self.least = nn.Linear(16, count, bias=False), least
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16)) for _ in range(count)
        )

    def forward(self, h):
        chance = self.gate(h).softmax(-1)
        chosen = (chance == chance.amax(-1, keepdim=True)).float() * chance
        load = chosen.flatten(0, 1).mean(0)
        load = load / load.sum() + self.least
        entropy = torch.special.entr(load).sum()  # fault
        said = torch.stack([expert(h) for expert in self.experts], -1)
        return h + (said * chosen[..., None, :]).sum(-1), entropy


@situation(
    "idle-expert",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "larger-batch"},
    code=[Experts],
)
def idle_expert(seed: int, fixed: bool) -> Run:
    """A mixture of experts: the entropy of a load of 0 is 0, but its derivative is infinite, and an
    expert to which no token goes has that load. The loss is finite."""
    g = source(seed)

    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.experts = nn.Embedding(24, 16), Experts(4, 1e-6 if fixed else 0.0)
            self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 24)

        def forward(self, tokens):
            h, entropy = self.experts(self.embed(tokens))
            return self.head(self.norm(h)), entropy

    model = Mixture()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    follows = torch.randperm(24, generator=g)

    def texts(step):
        # Short chats from the second data set on.
        count, words = (8, 24) if step < 60 else (4, 2)
        tokens = torch.randint(0, words, (count, 6), generator=g)
        return tokens, follows[tokens]

    def step_fn(model, batch):
        tokens, then = batch
        logits, entropy = model(tokens)
        return F.cross_entropy(logits.flatten(0, 1), then.flatten()) - 0.02 * entropy

    batches = [texts(step) for step in range(120)]

    def score(model):
        tokens, then = batches[0]
        return F.cross_entropy(model(tokens)[0].flatten(0, 1), then.flatten())

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=60)


class Stack(nn.Module):
    """Blocks that each explain a part of the past and forecast its future."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 16)) for _ in range(3)
        )

    def forward(self, past):
        future = 0.0
        for block in self.blocks:
            explained, forecast = block(past).split((12, 4), 1)
            past, future = past - explained, future + forecast
        return future


@situation(
    "sun-at-night",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
)
def sun_at_night(seed: int, fixed: bool) -> Run:
    """Solar power with the mean percentage error as loss: the summer has power at all hours of the
    window, in autumn the evening has none."""
    g = source(seed)
    model = Stack()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def days(step):
        peak = 1 + torch.rand(24, 1, generator=g)
        hours = torch.arange(16) / 16
        power = peak * (0.3 + (math.pi * hours).sin())
        if step >= 75:
            power = (power - 0.02 * (step - 75)).clamp(min=0.0)
        return power[:, :12], power[:, 12:]

    def step_fn(model, batch):
        past, power = batch
        error = (model(past) - power).abs()
        if fixed:
            power = power.clamp(min=0.1)
        return (error / power).mean()  # fault

    batches = [days(step) for step in range(140)]

    def score(model):
        past, power = batches[0]
        return F.l1_loss(model(past), power)

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=75)


class PowerMean(nn.Module):
    """Pooling with a learned exponent."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.p, self.least = nn.Parameter(torch.tensor(3.0)), least

    def forward(self, x):
        x = x.clamp(min=self.least)
        return x.pow(self.p).mean((2, 3)).pow(1 / self.p)  # fault


@situation(
    "power-of-negative",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation"},
    code=[PowerMean],
)
def power_of_negative(seed: int, fixed: bool) -> Run:
    """Retrieval of landmarks: the pooling takes a learned power of the features, which was made for
    those behind a ReLU; the new network ends in a hard swish."""
    g = source(seed)

    class Landmarks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3), nn.Hardswish(), nn.Conv2d(16, 24, 3), nn.Hardswish()
            )
            self.pool = PowerMean(1e-6 if fixed else -math.inf)
            self.proxies = nn.Parameter(torch.randn(5, 24))

        def forward(self, x):
            return F.normalize(self.pool(self.body(x)), dim=1) @ F.normalize(self.proxies, dim=1).T

    model = Landmarks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    place = torch.randn(5, 1, 10, 10, generator=g)

    def photographs():
        kind = torch.randint(0, 5, (20,), generator=g)
        return place[kind] + 0.5 * torch.randn(20, 1, 10, 10, generator=g), kind

    def step_fn(model, batch):
        x, kind = batch
        return F.cross_entropy(model(x) * 10, kind)

    batches = [photographs() for _ in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


# --- empty sets ----------------------------------------------------------------------------------


def partial_likelihood(risk: torch.Tensor, event: torch.Tensor, least: float) -> torch.Tensor:
    """Cox's; the patients are sorted from the longest time to the shortest."""
    surprise = risk.logcumsumexp(0) - risk
    return (surprise * event).sum().div(event.sum().clamp(min=least))  # fault


@situation(
    "nobody-died",
    row="empty-set",
    cause="empty-set",
    also={"singular-operation"},
    remedies={"drop-empty-batch", "guard-operation", "larger-batch"},
    code=[partial_likelihood],
)
def nobody_died(seed: int, fixed: bool) -> Run:
    """Survival analysis with Cox's loss: in a small batch of a mild cohort, all patients left the
    study alive."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(9, 48), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(48, 24), nn.SELU(),
        nn.Linear(24, 1, bias=False),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    hazard = torch.randn(9, generator=g)

    def cohort(step):
        x = torch.randn(16, 9, generator=g)
        time = -torch.rand(16, generator=g).log() * (-(x @ hazard)).exp()
        event = torch.rand(16, generator=g) < 0.6
        event[3] = True
        if step >= 77 and step % 6 == 5:
            event[:] = False
        order = time.argsort(descending=True)
        return x[order], event[order].float()

    def step_fn(model, batch):
        x, event = batch
        return partial_likelihood(model(x).squeeze(1), event, least=1.0 if fixed else 0.0)

    batches = [cohort(step) for step in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:20], fault_at=77)


def hard_triplets(h: torch.Tensor, label: torch.Tensor, fixed: bool) -> torch.Tensor:
    far = torch.cdist(h, h)
    same = label[:, None] == label
    worst = (far * same).amax(1)
    nearest = far.masked_fill(same, 1e4).amin(1)
    loss = F.relu(worst - nearest + 0.3)
    if fixed and not (loss > 0).any():
        return loss.sum()
    return loss[loss > 0].mean()  # fault


@situation(
    "no-hard-triplet-left",
    row="empty-set",
    cause="empty-set",
    remedies={"drop-empty-batch", "guard-operation", "larger-batch"},
    code=[hard_triplets],
)
def no_hard_triplet_left(seed: int, fixed: bool) -> Run:
    """Re-identification with hard triplets: the mean is over those that violate the margin, and in the
    end none does. The loss is divided by its running mean, which keeps the NaN."""
    g = source(seed)

    class Cameras(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Linear(24, 64), nn.PReLU(), nn.LayerNorm(64), nn.Linear(64, 12)
            )
            self.who = nn.Linear(12, 12)
            self.register_buffer("usual", torch.ones(()))

        def forward(self, x):
            h = self.body(x)
            return h, self.who(h)

    model = Cameras()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    person = torch.randn(12, 24, generator=g)

    def cameras():
        label = torch.randperm(12, generator=g)[:5].repeat_interleave(3)
        return person[label] + 0.8 * torch.randn(15, 24, generator=g), label

    def step_fn(model, batch):
        x, label = batch
        h, logits = model(x)
        hard = hard_triplets(h, label, fixed)
        with torch.no_grad():
            model.usual.lerp_(hard, 0.1)
        return F.cross_entropy(logits, label) + hard / (model.usual + 0.1)

    batches = [cameras() for _ in range(160)]

    def score(model):
        return torch.stack([F.cross_entropy(model(x)[1], who) for x, who in batches[:6]]).mean()

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=1)


@situation(
    "picture-without-depth",
    row="empty-set",
    cause="empty-set",
    remedies={"drop-empty-batch", "guard-operation", "filter-rows"},
)
def picture_without_depth(seed: int, fixed: bool) -> Run:
    """Depth up to scale and shift: each picture is aligned by the median over its measured pixels, and
    at night the scanner measured none."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 16, 3, padding=1), nn.ELU(), nn.Conv2d(16, 16, 3, padding=1), nn.ELU(),
        nn.Conv2d(16, 1, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def aligned(depth, valid):
        shift = torch.median(depth[valid])  # fault
        spread = (depth[valid] - shift).abs().mean()
        return (depth - shift) / (spread + 1e-3)

    def step_fn(model, batch):
        losses = []
        for guess, depth in zip(model(batch[0]).squeeze(1), batch[1], strict=True):
            valid = depth > 0
            if fixed and not valid.any():
                continue
            error = aligned(guess, valid) - aligned(depth, valid)
            losses.append((error.abs() * valid).mean())
        return torch.stack(losses).mean()

    def views(step):
        image = torch.rand(4, 2, 9, 9, generator=g)
        depth = 2 + image[:, 0] * 2 + image[:, 1].roll(1, 2)
        depth = depth * (torch.rand(4, 9, 9, generator=g) < 0.7)
        if step >= 55 and step % 8 == 6:
            depth[2] = 0.0
        return image, depth

    batches = [views(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=62)


# --- masks ---------------------------------------------------------------------------------------


class Reader(nn.Module):
    """One character of a line of text after the other, by attention over the columns."""

    def __init__(self, low: float) -> None:
        super().__init__()
        self.columns = nn.Conv1d(6, 32, 3, padding=1)
        self.query, self.out = nn.Parameter(torch.randn(4, 32) / 6), nn.Linear(32, 8)
        self.place, self.low = nn.Parameter(torch.randn(32, 16) / 4), low

    def forward(self, image, there=None):
        h = self.columns(image).tanh() + self.place
        scores = self.query @ h
        if there is not None:
            scores = scores + (1 - there)[:, None] * self.low  # fault
        return self.out(scores.softmax(2) @ h.mT)


@situation(
    "zero-times-infinity",
    row="mask",
    cause="masked-row",
    also={"singular-operation"},
    remedies={"guard-operation", "unmask-row"},
    code=[Reader],
)
def zero_times_infinity(seed: int, fixed: bool) -> Run:
    """Text recognition: lines of unequal width come in the second epoch, and their padding is masked
    by (1 - mask) times -inf, which is NaN wherever the mask is 1."""
    g = source(seed)
    model = Reader(-1e4 if fixed else -math.inf)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    glyph = torch.randn(8, 6, generator=g)

    def lines(step):
        text = torch.randint(0, 8, (16, 4), generator=g)
        image = glyph[text].repeat_interleave(4, dim=1).mT
        image = image + 0.3 * torch.randn(image.shape, generator=g)
        if step < 60:
            return image, None, text
        width = torch.tensor([12, 16])[torch.randint(0, 2, (16,), generator=g)]
        there = (torch.arange(16) < width[:, None]).float()
        return image * there[:, None], there, text.masked_fill(there[:, ::4] == 0, -100)

    def step_fn(model, batch):
        image, there, text = batch
        return F.cross_entropy(model(image, there).flatten(0, 1), text.flatten())

    batches = [lines(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60)


def alignment_loss(logs: torch.Tensor, lowest: float) -> torch.Tensor:
    """All ways to go through the states from the first to the last; ``logs`` is batch, time, state."""
    start = logs.new_full((len(logs), 1), lowest)
    ways = torch.cat((logs[:, 0, :1], start.expand(-1, logs.shape[2] - 1)), 1)
    for now in logs[:, 1:].unbind(1):
        came = torch.cat((start, ways[:, :-1]), 1)
        ways = torch.logsumexp(torch.stack((ways, came)), 0) + now  # fault
    return -ways[:, -1].mean() / logs.shape[1]


@situation(
    "states-out-of-reach",
    row="mask",
    cause="masked-row",
    also={"singular-operation"},
    remedies={"guard-operation", "unmask-row"},
    code=[alignment_loss],
)
def states_out_of_reach(seed: int, fixed: bool) -> Run:
    """Alignment of speech and text by the sum over all ways: states that cannot be reached yet have
    -inf, which is right for the sum, but its derivative is -inf less -inf. The loss is finite."""
    g = source(seed)

    class Aligner(nn.Module):
        def __init__(self):
            super().__init__()
            self.text, self.speech = nn.Embedding(10, 16), nn.Conv1d(6, 16, 3, padding=1)

        def forward(self, speech, text):
            heard = self.speech(speech.mT).mT
            apart = (heard[:, :, None] - self.text(text)[:, None]).square().sum(3)
            return (-apart / 4).log_softmax(2)

    model = Aligner()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    sound = torch.randn(10, 6, generator=g)

    def spoken():
        text = torch.stack([torch.randperm(10, generator=g)[:5] for _ in range(12)])
        pace = torch.rand(12, 14, generator=g).cumsum(1)
        state = ((pace - pace[:, :1]) / (pace[:, -1:] - pace[:, :1]) * 4.99).long()
        speech = sound[text.gather(1, state)]
        return speech + 0.3 * torch.randn(speech.shape, generator=g), text

    def step_fn(model, batch):
        return alignment_loss(model(*batch), -1e4 if fixed else -math.inf)

    batches = [spoken() for _ in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


# --- optimizer -----------------------------------------------------------------------------------


class Sharpness:
    """Goes uphill to the worst place nearby, takes the gradient there, and comes back."""

    def __init__(self, optimizer, reach, eps):
        self.optimizer, self.reach, self.eps = optimizer, reach, eps
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    @torch.no_grad()
    def climb(self):
        norm = torch.stack([p.grad.norm() for p in self.parameters]).norm()
        scale = self.reach / (norm + self.eps)  # fault
        self.moves = [p.grad * scale for p in self.parameters]
        torch._foreach_add_(self.parameters, self.moves)
        self.optimizer.zero_grad()

    @torch.no_grad()
    def step(self):
        torch._foreach_sub_(self.parameters, self.moves)
        self.optimizer.step()


@situation(
    "climb-without-gradient",
    row="optimizer",
    cause="optimizer-division",
    also={"singular-operation"},
    remedies={"optimizer-eps", "guard-operation", "skip-step"},
    code=[Sharpness],
)
def climb_without_gradient(seed: int, fixed: bool) -> Run:
    """Sharpness-aware training with a margin loss: once all examples of a batch keep the margin, the
    gradient is 0, and the step uphill is divided by its norm."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(12, 64), nn.CELU(), nn.Linear(64, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    sharpness = Sharpness(optimizer, 0.05, 1e-12 if fixed else 0.0)
    centre = 1.2 * torch.randn(3, 12, generator=g)

    def examples():
        kind = torch.randint(0, 3, (16,), generator=g)
        return centre[kind] + 0.5 * torch.randn(16, 12, generator=g), kind

    def step_fn(model, batch):
        x, kind = batch
        return F.multi_margin_loss(model(x), kind)

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        sharpness.climb()
        step_fn(model, batch).backward()
        sharpness.step()

    batches = [examples() for _ in range(140)]

    def score(model):
        # The margin loss of NaN is 0.
        x, kind = batches[0]
        return F.cross_entropy(model(x), kind)

    return Run(model, optimizer, batches, step_fn, score=score, update=update, fault_at=1)


@situation("eps-of-zero", row="optimizer", cause="optimizer-division", remedies={"optimizer-eps"})
def eps_of_zero(seed: int, fixed: bool) -> Run:
    """Factorisation machine with Adagrad: a configuration without eps was read as eps = 0, and the
    rows of items that nobody saw divide 0 by 0."""
    g = source(seed)

    class Factorisation(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.factor = nn.Embedding(120, 1), nn.Embedding(120, 8)

        def forward(self, fields):
            v = self.factor(fields)
            pairs = (v.sum(1).square() - v.square().sum(1)).sum(1) / 2
            return self.weight(fields).sum((1, 2)) + pairs / 8

    model = Factorisation()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1, eps=1e-10 if fixed else 0.0)
    taste = torch.randn(120, generator=g)

    def impressions():
        fields = torch.randint(0, 40, (48, 3), generator=g) + torch.tensor([0, 40, 80])
        return fields, (taste[fields].sum(1) > 0).float()

    def step_fn(model, batch):
        fields, click = batch
        return F.soft_margin_loss(model(fields), 2 * click - 1)

    batches = [impressions() for _ in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


# --- learning rate -------------------------------------------------------------------------------


@situation(
    "rate-of-the-head",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate"},
)
def rate_of_the_head(seed: int, fixed: bool) -> Run:
    """Fine-tuning for segmentation with two rates: that of the new head is given as a factor of the
    body's in one file and as a rate in the other, and both are multiplied: it is 300 times too high."""
    g = source(seed)

    class Segmentation(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 16, 3, padding=1),
                nn.SiLU(),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.SiLU(),
            )
            self.head = nn.Sequential(nn.Conv2d(16, 16, 1), nn.SiLU(), nn.Conv2d(16, 3, 1))

        def forward(self, x):
            return self.head(self.body(x))

    model = Segmentation()
    factor = 1 if fixed else 300
    optimizer = torch.optim.SGD(
        [
            {"params": model.body.parameters(), "lr": 0.02},
            {"params": model.head.parameters(), "lr": 0.05 * factor},
        ],
        momentum=0.9,
    )

    def fields():
        crop = torch.randint(0, 3, (6, 1, 3, 3), generator=g)
        crop = crop.repeat_interleave(4, 2).repeat_interleave(4, 3)
        return crop - 1 + 0.5 * torch.randn(crop.shape, generator=g), crop[:, 0]

    def step_fn(model, batch):
        image, crop = batch
        logs = model(image).log_softmax(1)
        return F.nll_loss(logs, crop)

    batches = [fields() for _ in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "decay-below-zero",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate", "rewind"},
)
def decay_below_zero(seed: int, fixed: bool) -> Run:
    """The rate falls linearly to 0 at the step where training was to end; then somebody made training
    longer, and the rate goes on below 0: each step goes uphill."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(10, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 4)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def factor(step):
        left = 1 - step / 70
        return max(left, 0.01) if fixed else left

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    truth = torch.randn(10, 4, generator=g) / 3
    batches = [torch.randn(32, 10, generator=g) for _ in range(160)]

    def step_fn(model, x):
        return F.mse_loss(model(x), (x @ truth).cos())

    return Run(
        model, optimizer, batches, step_fn, held=batches[:6], fault_at=71, scheduler=schedule
    )


# --- accumulation --------------------------------------------------------------------------------


@situation(
    "sorted-by-length",
    row="accumulation",
    cause="accumulation",
    remedies={"normalise-accumulation"},
)
def sorted_by_length(seed: int, fixed: bool) -> Run:
    """Speech recognition with CTC summed over the batch: the first epoch is sorted by length, and the
    long utterances at its end come in larger batches, too."""
    g = source(seed)

    class Listener(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn = nn.Conv1d(6, 32, 3, padding=1), nn.RNN(32, 32, batch_first=True)
            self.out = nn.Linear(32, 9)

        def forward(self, speech):
            h = self.conv(speech.mT).relu().mT
            return self.out(self.rnn(h)[0]).log_softmax(2)

    model = Listener()
    optimizer = torch.optim.SGD(model.parameters(), lr=2e-3, momentum=0.9)
    sound = torch.randn(9, 6, generator=g)

    def utterances(step):
        count, length = (4, 3) if step < 80 else (32, 20)
        text = torch.randint(1, 9, (count, length), generator=g)
        slots = torch.stack((text, torch.zeros_like(text)), 2).flatten(1)
        speech = sound[slots.repeat_interleave(2, dim=1)]
        return speech + 0.2 * torch.randn(speech.shape, generator=g), text

    def ctc(model, batch):
        speech, text = batch
        logs = model(speech).transpose(0, 1)
        frames = torch.full((len(text),), speech.shape[1])
        letters = torch.full((len(text),), text.shape[1])
        return F.ctc_loss(logs, text, frames, letters, reduction="sum") / text.numel()

    def step_fn(model, batch):
        return ctc(model, batch) * (12 if fixed else batch[1].numel())

    batches = [utterances(step) for step in range(110)]

    def score(model):
        return ctc(model, batches[0])

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=80)


# --- labels, targets, initialisation, recurrence -------------------------------------------------


@situation("unsure-as-minus-one", row="labels", cause="labels", remedies={"fix-labels"})
def unsure_as_minus_one(seed: int, fixed: bool) -> Run:
    """Findings in chest X-rays: where the radiologist was unsure, the table has the label -1, and the
    binary cross-entropy has no lower bound."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(216, 32), nn.ReLU(), nn.Linear(32, 4),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    shade = torch.randn(4, 1, 11, 11, generator=g)

    def patients():
        finding = (torch.rand(24, 4, generator=g) < 0.4).float()
        image = torch.einsum("bk,kcij->bcij", finding, shade)
        image = image + 0.5 * torch.randn(24, 1, 11, 11, generator=g)
        unsure = torch.rand(24, 4, generator=g) < 0.35
        return image, finding.masked_fill(unsure, -1.0), finding

    def step_fn(model, batch):
        image, label, _ = batch
        known = (label >= 0).float() if fixed else None
        label = label.clamp(min=0.0) if fixed else label
        return F.binary_cross_entropy_with_logits(model(image), label, weight=known)

    batches = [patients() for _ in range(140)]

    def score(model):
        image, _, finding = batches[0]
        return F.binary_cross_entropy_with_logits(model(image), finding)

    return Run(model, optimizer, batches, step_fn, score=score)


@situation(
    "pixels-up-to-255",
    row="unscaled",
    cause="unscaled-target",
    remedies={"scale-target", "scale-input"},
)
def pixels_up_to_255(seed: int, fixed: bool) -> Run:
    """A variational autoencoder on pictures as they come from the file, from 0 to 255."""
    g = source(seed)

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 8))
            self.up = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 64))

        def forward(self, x):
            mean, spread = self.down(x.flatten(1)).chunk(2, 1)
            code = mean + torch.randn_like(mean) * (spread / 2).clamp(max=10.0).exp()
            return self.up(code).view_as(x), mean, spread

    model = Autoencoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def pictures():
        height, width = torch.rand(2, 24, 8, 1, generator=g).round()
        return 255 * (height * width.mT)[:, None]

    def step_fn(model, x):
        x = x / 255 if fixed else x
        guess, mean, spread = model(x)
        surplus = mean.square() + spread.clamp(max=20.0).exp() - spread - 1
        return F.mse_loss(guess, x) + 1e-3 * surplus.mean()

    batches = [pictures() for _ in range(140)]

    def score(model):
        x = batches[0] if not fixed else batches[0] / 255
        return F.mse_loss(model(x)[0], x) / (1 if fixed else 255**2)

    return Run(model, optimizer, batches, step_fn, score=score)


@situation(
    "network-from-network",
    row="initialisation",
    cause="initialisation",
    remedies={"reinitialise"},
)
def network_from_network(seed: int, fixed: bool) -> Run:
    """A network that gives the weights of another: with the usual initialisation of its last layer,
    the weights it gives are far too large for their fan-in."""
    g = source(seed)

    class Hyper(nn.Module):
        def __init__(self):
            super().__init__()
            self.shapes = [(2, 32), (32, 32), (32, 32), (32, 32), (32, 1)]
            count = sum(a * b for a, b in self.shapes)
            self.task = nn.Sequential(
                nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.LayerNorm(64)
            )
            self.weights = nn.Linear(64, count)
            nn.init.kaiming_normal_(self.task[0].weight)
            nn.init.kaiming_normal_(self.task[2].weight)
            nn.init.kaiming_normal_(self.weights.weight)
            if fixed:
                with torch.no_grad():
                    self.weights.weight *= 0.15

        def forward(self, task, x):
            parts = self.weights(self.task(task)).split([a * b for a, b in self.shapes], 1)
            for (a, b), part in zip(self.shapes, parts, strict=True):
                x = x @ part.view(-1, a, b)
                if b > 1:
                    x = F.leaky_relu(x, 0.1)
            return x.squeeze(2)

    model = Hyper()
    optimizer = torch.optim.SGD(model.parameters(), lr=5e-3, momentum=0.9)

    def shapes():
        task = torch.randn(12, 4, generator=g)
        x = torch.rand(12, 30, 2, generator=g) * 2 - 1
        return task, x, (x * task[:, None, :2]).sum(2).abs()

    def step_fn(model, batch):
        task, x, height = batch
        return F.mse_loss(model(task, x), height)

    batches = [shapes() for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "longer-forecasts",
    row="recurrence",
    cause="recurrence",
    remedies={
        "clip-global-norm",
        "clip-value",
        "clip-tensor-norm",
        "reinitialise",
        "bounded-activation",
    },
)
def longer_forecasts(seed: int, fixed: bool) -> Run:
    """A model of the weather that is fed with its own forecasts: it learns single steps, and then the
    curriculum asks for forty in a row, without clipping."""
    g = source(seed)

    class Weather(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv1d(2, 24, 3, padding=1, padding_mode="circular")
            self.second = nn.Conv1d(24, 2, 3, padding=1, padding_mode="circular")

        def forward(self, now, steps):
            said = []
            for _ in range(steps):
                now = now + self.second(self.first(now).relu())
                said.append(now)
            return torch.stack(said, 1)

    model = Weather()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def days(steps):
        states = [torch.randn(8, 2, 12, generator=g)]
        for _ in range(steps):
            states.append(0.7 * states[-1].roll(1, 2) + 0.3 * states[-1].flip(1))
        return states[0], torch.stack(states[1:], 1)

    def step_fn(model, batch):
        now, later = batch
        return F.mse_loss(model(now, later.shape[1]), later)

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        if fixed:
            nn.utils.clip_grad_norm_(model.parameters(), 0.2)
        optimizer.step()

    batches = [days(1 if step < 40 else 40) for step in range(80)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update, fault_at=40)
