"""The fourth part of the situations: unlike the others in model, loss, data and operation to blame.

They were written without a look at the rules that name causes, and no rule was written with a look
at them.
"""

from __future__ import annotations

import math

import torch
from situation import Run, situation
from torch import nn
from torch.nn import functional as F


def source(seed: int) -> torch.Generator:
    """Random numbers of the data alone."""
    return torch.Generator().manual_seed(13000 + seed)


# --- data ----------------------------------------------------------------------------------------


@situation("date-not-known", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def date_not_known(seed: int, fixed: bool) -> Run:
    """Repair times from tickets: dates were read as nanoseconds since 1970, and where there is none,
    the integer is the lowest of 64 bits, so that the feature is hundreds of deviations off."""
    g = source(seed)

    class Tickets(nn.Module):
        def __init__(self):
            super().__init__()
            self.product = nn.Embedding(12, 6)
            self.net = nn.Sequential(
                nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 1)
            )

        def forward(self, product, numbers, opened):
            days = opened.double() / 8.64e13
            when = ((days - 19_000) / 300).float()
            parts = self.product(product), numbers, when[:, None]
            return self.net(torch.cat(parts, 1)).squeeze(1)

    model = Tickets()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    pull = torch.randn(3, generator=g)
    slow = torch.randn(12, generator=g)

    def tickets(step):
        product = torch.randint(0, 12, (32,), generator=g)
        numbers = torch.randn(32, 3, generator=g)
        day = 19_000 + 300 * torch.randn(32, generator=g).double()
        duration = numbers @ pull + slow[product] + ((day - 19_000) / 300).float().sin()
        opened = (day * 8.64e13).long()
        if step >= 66 and step % 6 == 0:
            opened[[4, 21]] = torch.iinfo(torch.int64).min
        return product, numbers, opened, duration

    batches = [tickets(step) for step in range(130)]
    if fixed:
        batches = [[part[b[2] > 0] for part in b] for b in batches]

    def step_fn(model, batch):
        *features, duration = batch
        return F.mse_loss(model(*features), duration)

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=66)


class ImageText(nn.Module):
    """Image features that were computed beforehand and bags of words, into one space."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(24, 64), nn.GELU(), nn.Linear(64, 16))
        self.words = nn.EmbeddingBag(40, 16)
        self.log_scale = nn.Parameter(torch.tensor(math.log(5.0)))

    def forward(self, image, text):
        image = F.normalize(self.image(image), dim=-1)
        text = F.normalize(self.words(text), dim=-1)
        return self.log_scale.exp() * image @ text.T


@situation("blank-picture", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def blank_picture(seed: int, fixed: bool) -> Run:
    """Pictures and captions: the script that stored the image features divided them by their length,
    and a picture that failed to download had features of 0."""
    g = source(seed)
    model = ImageText()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    look = torch.randn(8, 24, generator=g)

    def stored(step):
        topic = torch.randperm(8, generator=g)
        text = 5 * topic[:, None] + torch.randint(0, 5, (8, 6), generator=g)
        features = look[topic] + 0.5 * torch.randn(8, 24, generator=g)
        if step in (71, 94):
            features[step % 8] = 0.0
        return {"image": features / features.norm(dim=1, keepdim=True), "text": text}

    batches = [stored(step) for step in range(120)]
    if fixed:
        for batch in batches:
            known = batch["image"].isfinite().all(1)
            batch["image"], batch["text"] = batch["image"][known], batch["text"][known]

    def step_fn(model, batch):
        logits = model(batch["image"], batch["text"])
        pairs = torch.arange(len(logits))
        return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=71)


class MessagePassing(nn.Module):
    """Energies of molecules from kinds of atoms and the inverse distances of all pairs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 24)
        self.message = nn.Sequential(nn.Linear(49, 48), nn.SiLU(), nn.Linear(48, 24))
        self.update = nn.GRUCell(24, 24)
        self.energy = nn.Linear(24, 1)

    def forward(self, kind, edges, inverse, owner, count):
        h, (start, end) = self.embed(kind), edges
        for _ in range(2):
            message = self.message(torch.cat((h[start], h[end], inverse[:, None]), 1))
            h = self.update(torch.zeros_like(h).index_add(0, end, message), h)
        return h.new_zeros(count, 1).index_add(0, owner, self.energy(h)).squeeze(1)


@situation(
    "two-atoms-at-one-place", row="data", cause="data", remedies={"filter-rows", "skip-step"}
)
def two_atoms_at_one_place(seed: int, fixed: bool) -> Run:
    """Message passing over molecules: the data set stores the inverse distance of each pair, and a
    damaged file has two atoms at the same place."""
    g = source(seed)
    model = MessagePassing()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    charge = torch.tensor([0.5, -0.4, 0.2, 0.8, -0.6])
    first, second = (~torch.eye(6, dtype=torch.bool)).nonzero().T

    def molecules(step):
        place = 2 * torch.randn(12, 6, 3, generator=g)
        kind = torch.randint(0, 5, (12, 6), generator=g)
        if step >= 59 and step % 16 == 11:
            place[5, 4] = place[5, 1]
        if fixed:
            whole = (place[:, first] != place[:, second]).any(2).all(1)
            place, kind = place[whole], kind[whole]
        inverse = 1 / (place[:, first] - place[:, second]).norm(dim=2)
        energy = (charge[kind[:, first]] * charge[kind[:, second]] * inverse.clamp(max=2)).sum(1)
        offset = 6 * torch.arange(len(kind))[:, None]
        edges = torch.stack(((first + offset).flatten(), (second + offset).flatten()))
        owner = torch.arange(len(kind)).repeat_interleave(6)
        return kind.flatten(), edges, inverse.clamp(min=0.05).flatten(), owner, energy

    def step_fn(model, batch):
        *graph, energy = batch
        return F.mse_loss(model(*graph, len(energy)), energy)

    batches = [molecules(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=59)


class CellAutoencoder(nn.Module):
    """Counts of genes; the decoder gives each gene's share of all counts of the cell."""

    def __init__(self, genes: int = 20) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(genes, 48), nn.ReLU(), nn.Linear(48, 8))
        self.decoder = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, genes))
        self.log_dispersion = nn.Parameter(torch.ones(genes))

    def forward(self, counts):
        library = counts.sum(1, keepdim=True)
        share = counts / library  # fault
        mean, log_variance = self.encoder(torch.log1p(100 * share)).chunk(2, 1)
        code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return library * self.decoder(code).softmax(1), mean, log_variance


def negative_binomial(counts, rate, dispersion, eps=1e-8):
    total = torch.log(dispersion + rate + eps)
    return (
        dispersion * (torch.log(dispersion + eps) - total)
        + counts * (torch.log(rate + eps) - total)
        + torch.lgamma(counts + dispersion)
        - torch.lgamma(dispersion)
        - torch.lgamma(counts + 1)
    ).sum(1)


@situation(
    "empty-droplet",
    row="data",
    cause="data",
    also={"singular-operation", "empty-set"},
    remedies={"filter-rows", "skip-step", "guard-operation"},
    code=[CellAutoencoder],
)
def empty_droplet(seed: int, fixed: bool) -> Run:
    """A variational autoencoder of single cells: droplets without a cell were not filtered out, and
    their counts are divided by their sum, which is 0."""
    g = source(seed)
    model = CellAutoencoder()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    kinds = (1.5 * torch.randn(5, 20, generator=g)).softmax(1)

    def droplets(step):
        kind = torch.randint(0, 5, (32,), generator=g)
        depth = 200 + 200 * torch.rand(32, 1, generator=g)
        counts = torch.poisson(depth * kinds[kind], generator=g)
        if step >= 68 and step % 10 == 8:
            counts[[9, 30]] = 0.0
        return counts

    batches = [droplets(step) for step in range(120)]
    if fixed:
        batches = [counts[counts.sum(1) > 0] for counts in batches]

    def step_fn(model, counts):
        rate, mean, log_variance = model(counts)
        surplus = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
        likelihood = negative_binomial(counts, rate, model.log_dispersion.exp())
        return (surplus - likelihood).mean()

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=68)


# --- number type ---------------------------------------------------------------------------------


class DiceLoss(nn.Module):
    """One less the mean overlap of all classes over the whole batch."""

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits, target):
        probability = logits.softmax(-1)
        truth = F.one_hot(target, logits.shape[-1]).to(probability.dtype)
        common = (probability * truth).sum((0, 1))  # fault
        total = probability.sum((0, 1)) + truth.sum((0, 1))  # fault
        overlap = (2 * common + self.smooth) / (total + self.smooth)
        return 1 - overlap.mean()


@situation(
    "half-dice",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[DiceLoss],
)
def half_dice(seed: int, fixed: bool) -> Run:
    """Segmentation of voxels under autocast to float16 with the Dice loss of the whole batch: once
    training goes from crops to whole scans, the background has more voxels than float16 can count."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(5, 16),
        nn.LayerNorm(16),
        nn.ReLU(),
        nn.Linear(16, 16),
        nn.ReLU(),
        nn.Linear(16, 2),
    )
    criterion = DiceLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    tissue = torch.randn(5, generator=g)

    def scans(step):
        size = 50_000 if step >= 60 and step % 15 == 0 else 500
        voxels = torch.randn(2, size, 5, generator=g)
        return voxels, (voxels @ tissue > 1.3 * tissue.norm()).long()

    def step_fn(model, batch):
        voxels, target = batch
        with torch.autocast("cpu", torch.float16):
            logits = model(voxels)
            return criterion(logits.float() if fixed else logits, target).float()

    batches = [scans(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60)


def gram(features: torch.Tensor, fixed: bool) -> torch.Tensor:
    """How much the channels sound together, whatever the time."""
    frames = features.shape[1]
    if fixed:
        features = features / math.sqrt(frames)
        return torch.einsum("btc,btd->bcd", features, features)
    return torch.einsum("btc,btd->bcd", features, features) / frames  # fault


@situation(
    "half-gram",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[gram],
)
def half_gram(seed: int, fixed: bool) -> Run:
    """Style transfer of sounds under autocast to float16: the products of the features are divided by
    the number of frames after the sum, which for a whole song does not fit."""
    g = source(seed)

    class Styliser(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(10, 32), nn.Linear(32, 10)
            self.norm = nn.LayerNorm(32)

        def forward(self, frames):
            return frames + self.last(self.norm(self.first(frames)).relu())

    model = Styliser()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    # The first layer of a network that was trained on other sounds; it stays as it is.
    filters = 1.5 * torch.randn(10, 12, generator=g)

    def heard(frames):
        return (frames @ filters).relu()

    example = torch.randn(1, 400, 10, generator=g) @ torch.randn(10, 10, generator=g) / 3
    wanted = gram(heard(example), True)

    def sounds(step):
        count, length = (1, 9000) if step >= 57 and step % 8 == 1 else (6, 60)
        return torch.randn(count, length, 10, generator=g)

    def step_fn(model, frames):
        with torch.autocast("cpu", torch.float16):
            drawn = model(frames)
            style = gram(heard(drawn), fixed).float()
        content_loss = F.mse_loss(drawn.float(), frames)
        return 0.01 * (style - wanted).square().mean() + 0.1 * content_loss

    batches = [sounds(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=57)


def softplus(x: torch.Tensor) -> torch.Tensor:
    return torch.log(1 + torch.exp(x))  # fault


@situation(
    "half-logistic-gan",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[softplus],
)
def half_logistic_gan(seed: int, fixed: bool) -> Run:
    """A GAN under autocast to float16 with the logistic loss written by hand: as soon as the
    discriminator is sure, the generator's loss takes exp of more than 11."""
    g = source(seed)
    model = nn.ModuleDict(
        {
            "generator": nn.Sequential(nn.Linear(3, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2)),
            "discriminator": nn.Sequential(
                nn.Linear(2, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.LeakyReLU(0.2),
                nn.Linear(48, 1),
            ),
        }
    )  # fmt: skip
    optimizer = torch.optim.Adam(model["generator"].parameters(), lr=1e-3, betas=(0.5, 0.99))
    other = torch.optim.Adam(model["discriminator"].parameters(), lr=1e-2, betas=(0.5, 0.99))
    centre = torch.tensor([6.0, -5.0])

    def logits(points):
        with torch.autocast("cpu", torch.float16):
            said = model["discriminator"](points)
        return said.float() if fixed else said

    def drawn(model, count=32):
        return model["generator"](torch.randn(count, 3))

    def step_fn(model, real):
        return softplus(-logits(drawn(model))).mean().float()

    def update(real, backward):
        other.zero_grad()
        false = drawn(model).detach()
        (softplus(logits(false)).mean() + softplus(-logits(real)).mean()).backward()
        other.step()
        optimizer.zero_grad()
        backward(step_fn(model, real), real)
        optimizer.step()

    batches = [centre + 0.5 * torch.randn(32, 2, generator=g) for _ in range(160)]

    def score(model):
        return (drawn(model, 256).mean(0) - centre).norm()

    return Run(model, optimizer, batches, step_fn, score=score, update=update, fault_at=40)


class ResponseNorm(nn.Module):
    """Each channel's share in the response of the whole picture; ``x`` is batch, patch, channel."""

    def __init__(self, width: int, fixed: bool) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.fixed = fixed

    def forward(self, x):
        wide = x.float() if self.fixed else x
        response = (wide.square().sum(1, keepdim=True) + 1e-4).sqrt()  # fault
        share = response / (response.mean(2, keepdim=True) + 1e-6)
        return x + self.scale * (x * share) + self.shift


@situation(
    "half-response-norm",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[ResponseNorm],
)
def half_response_norm(seed: int, fixed: bool) -> Run:
    """A network over patches with gradient scaling under autocast to float16: when the pictures get
    larger in the second phase, a sum of squares overflows in each batch, and every step is skipped."""
    g = source(seed)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Linear(16, 12)
            self.wide, self.narrow = nn.Linear(12, 24), nn.Linear(24, 12)
            self.response = ResponseNorm(24, fixed)
            self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

        def forward(self, patches):
            h = self.stem(patches)
            h = h + self.narrow(self.response(F.gelu(self.wide(h))))
            return self.head(self.norm(h.mean(1)))

    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    look = torch.randn(4, 16, generator=g)

    def pictures(step):
        kind = torch.randint(0, 4, (8,), generator=g)
        patches = torch.randn(8, 9 if step < 60 else 1600, 16, generator=g)
        # Grey values as the scanner gives them.
        return 60 + 15 * patches + 10 * look[kind][:, None], kind

    def step_fn(model, batch):
        patches, kind = batch
        with torch.autocast("cpu", torch.float16):
            logits = model(patches)
        return F.cross_entropy(logits.float(), kind)

    batches = [pictures(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60, scaler=scaler)


# --- singular functions --------------------------------------------------------------------------


class Radiance(nn.Module):
    """Colour and depth of rays, from the density along them."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(15, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
        self.density, self.colour = nn.Linear(48, 1), nn.Linear(48, 3)
        self.fixed = fixed

    def forward(self, start, way, occupied):
        z = torch.linspace(0.5, 3.5, 16)
        place = start[:, None] + way[:, None] * z[:, None]
        waves = [f(place * k) for k in (1.5, 3.0) for f in (torch.sin, torch.cos)]
        h = self.net(torch.cat((place, *waves), -1))
        alpha = (1 - torch.exp(-F.softplus(self.density(h).squeeze(-1)) * 0.2)) * occupied
        through = torch.cumprod(1 - alpha, 1)
        weight = alpha * torch.cat((torch.ones_like(through[:, :1]), through[:, :-1]), 1)
        colour = (weight[..., None] * self.colour(h).sigmoid()).sum(1)
        hit = weight.sum(1)
        if self.fixed:
            hit = hit.clamp(min=1e-5)
        depth = (weight * z).sum(1) / hit  # fault
        return colour, depth


@situation(
    "ray-into-the-sky",
    row="singular",
    cause="singular-operation",
    also={"empty-set"},
    remedies={"guard-operation", "filter-rows"},
    code=[Radiance],
)
def ray_into_the_sky(seed: int, fixed: bool) -> Run:
    """A radiance field with depth as second target: after the warm-up, places known to be empty are
    left out, and on a ray that sees nothing else the depth is divided by weights that are all 0."""
    g = source(seed)
    model = Radiance(fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def rays(step):
        start = torch.tensor([0.0, 0.0, -2.0]) + 0.1 * torch.randn(48, 3, generator=g)
        ahead = torch.tensor([0.0, 0.0, 1.0])
        way = F.normalize(ahead + torch.randn(48, 3, generator=g) * 0.4, dim=1)
        # A ball of radius 0.7 around the origin, before a black sky.
        along = -(start * way).sum(1)
        gap = start.square().sum(1) - along.square()
        hits = gap < 0.49
        depth = along - (0.49 - gap).clamp(min=0.0).sqrt()
        colour = ((start + way * depth[:, None]) / 1.4 + 0.5).clamp(0, 1) * hits[:, None]
        occupied = torch.ones(48, 16)
        if step >= 60:
            place = start[:, None] + way[:, None] * torch.linspace(0.5, 3.5, 16)[:, None]
            occupied = (place.norm(dim=2) < 1.0).float()
        return (start, way, occupied), colour, depth, hits.float()

    def step_fn(model, batch):
        ray, colour, depth, hits = batch
        guess, far = model(*ray)
        return F.mse_loss(guess, colour) + 0.1 * ((far - depth).abs() * hits).mean()

    batches = [rays(step) for step in range(130)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60)


class Separator(nn.Module):
    """A mixture of two voices into its parts, by a mask for each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv1d(1, 32, 8, stride=4, bias=False)
        self.mask = nn.Sequential(
            nn.Conv1d(32, 48, 3, padding=1), nn.PReLU(), nn.Conv1d(48, 64, 3, padding=1)
        )
        self.decoder = nn.ConvTranspose1d(32, 1, 8, stride=4, bias=False)

    def forward(self, mixture):
        h = self.encoder(mixture[:, None]).relu()
        masks = self.mask(h).sigmoid().unflatten(1, (2, 32))
        return self.decoder((masks * h[:, None]).flatten(0, 1)).unflatten(0, (-1, 2)).squeeze(2)


def distortion(guess: torch.Tensor, truth: torch.Tensor, eps: float) -> torch.Tensor:
    """Decibels of distortion, whatever the volume; negative is good."""
    energy = truth.square().sum(-1, keepdim=True) + eps
    target = (guess * truth).sum(-1, keepdim=True) / energy * truth  # fault
    power, error = target.square().sum(-1), (guess - target).square().sum(-1)
    return -10 * torch.log10((power + eps) / (error + eps))


@situation(
    "one-voice-alone",
    row="singular",
    cause="singular-operation",
    also={"data"},
    remedies={"guard-operation", "filter-rows"},
    code=[distortion],
)
def one_voice_alone(seed: int, fixed: bool) -> Run:
    """Separation of two voices by the ratio of signal to distortion: in some mixtures the second voice
    does not speak, and the guess is projected onto a target of length 0."""
    g = source(seed)
    model = Separator()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def mixtures(step):
        time = torch.arange(92) * 0.2
        pitch = torch.tensor([[1.0], [3.1]]) * (1 + 0.2 * torch.rand(8, 2, 1, generator=g))
        phase = 6.3 * torch.rand(8, 2, 1, generator=g)
        voices = torch.sin(time * pitch + phase) * (0.5 + torch.rand(8, 2, 1, generator=g))
        if step >= 63 and step % 7 == 2:
            voices[5, 1] = 0.0
        return voices.sum(1), voices

    def step_fn(model, batch):
        mixture, voices = batch
        guess, eps = model(mixture), 1e-6 if fixed else 0.0
        ways = [distortion(guess, order, eps).mean(1) for order in (voices, voices.flip(1))]
        return torch.stack(ways).amin(0).mean()

    batches = [mixtures(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=65)


def hyperbolic_distance(u: torch.Tensor, v: torch.Tensor, eps: float) -> torch.Tensor:
    """Of points in the Poincaré ball."""
    apart = (u - v).square().sum(-1)
    room = (1 - u.square().sum(-1)) * (1 - v.square().sum(-1))
    return torch.acosh(1 + 2 * apart / room + eps)  # fault


@situation(
    "its-own-negative",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
    code=[hyperbolic_distance],
)
def its_own_negative(seed: int, fixed: bool) -> Run:
    """Hyperbolic embeddings of a tree: the new sampler of negatives may draw the node itself, whose
    distance is acosh(1), which has no derivative. The loss is finite."""
    g = source(seed)

    class Ball(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(63, 4)
            nn.init.uniform_(self.embed.weight, -0.1, 0.1)

        def forward(self, node):
            x = self.embed(node)
            return 0.98 * x / (1 + x.norm(dim=-1, keepdim=True))

    model = Ball()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)

    def links(step):
        child = torch.randint(1, 63, (24,), generator=g)
        others = torch.randint(1, 63, (24, 8), generator=g)
        others = (child[:, None] + others) % 63
        if step >= 56:
            drawn = torch.randint(0, 63, (24, 8), generator=g)
            drawn[3, 5] = child[3]
            others = drawn
        return child, (child - 1) // 2, others

    def step_fn(model, batch):
        child, parent, others = batch
        ends = torch.cat((parent[:, None], others), 1)
        near = hyperbolic_distance(model(child)[:, None], model(ends), 1e-5 if fixed else 0.0)
        return F.cross_entropy(-near, torch.zeros(24, dtype=torch.long))

    batches = [links(step) for step in range(150)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=56)


# --- empty sets ----------------------------------------------------------------------------------


def balanced_loss(logits: torch.Tensor, text: torch.Tensor, eps: float) -> torch.Tensor:
    """All positives and three times as many negatives, those with the highest loss."""
    each = F.binary_cross_entropy_with_logits(logits, text, reduction="none")
    positives = int(text.sum())
    negatives = min(3 * positives, text.numel() - positives)
    hardest, _ = (each * (1 - text)).flatten().topk(negatives)
    total = (each * text).sum() + hardest.sum()
    return total / (positives + negatives + eps)  # fault


@situation(
    "page-without-text",
    row="empty-set",
    cause="empty-set",
    also={"singular-operation"},
    remedies={"drop-empty-batch", "guard-operation"},
    code=[balanced_loss],
)
def page_without_text(seed: int, fixed: bool) -> Run:
    """Text detection with mining of hard negatives, three for each positive: a batch of blank pages has
    no positive, hence no negative either, and the loss is 0 / 0."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.ReLU(),
        nn.Conv2d(12, 12, (3, 5), padding=(1, 2)), nn.ReLU(), nn.Conv2d(12, 1, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)

    def pages(step):
        text = torch.zeros(4, 1, 14, 14)
        if not (step >= 61 and step % 9 == 7):
            for i in range(4):
                x, y = torch.randint(0, 8, (2,), generator=g).tolist()
                text[i, 0, y : y + 3, x : x + 6] = 1.0
        ink = torch.rand(text.shape, generator=g) < torch.where(text > 0, 0.7, 0.2)
        return ink + 0.2 * torch.randn(text.shape, generator=g), text

    def step_fn(model, batch):
        page, text = batch
        return balanced_loss(model(page), text, 1e-6 if fixed else 0.0)

    batches = [pages(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=61)


def prototypes(support: torch.Tensor, label: torch.Tensor, ways: int) -> torch.Tensor:
    return torch.stack([support[label == way].mean(0) for way in range(ways)])  # fault


@situation(
    "class-without-support",
    row="empty-set",
    cause="empty-set",
    remedies={"drop-empty-batch", "guard-operation", "filter-rows", "larger-batch"},
    code=[prototypes],
)
def class_without_support(seed: int, fixed: bool) -> Run:
    """Learning from few examples by the distance to the mean of each class: from the harder episodes
    on, the examples are drawn without regard to the class, and some class has none."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, 12),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    mix = torch.randn(4, 16, generator=g)

    def episodes(step):
        centre = 1.5 * torch.randn(5, 4, generator=g)
        given = torch.arange(5).repeat_interleave(3)
        if step >= 58 and (step - 58) % 12 < 4:
            given = torch.randint(0, 5, (15,), generator=g)
            if step % 12 == 10:
                given[given == 2] = 4
            if fixed:
                given[:5] = torch.arange(5)
        asked = torch.randint(0, 5, (20,), generator=g)
        support, query = (
            (centre[kind] + 0.5 * torch.randn(len(kind), 4, generator=g)) @ mix
            + torch.randn(len(kind), 16, generator=g)
            for kind in (given, asked)
        )
        return support, given, query, asked

    def step_fn(model, batch):
        support, given, query, asked = batch
        centres = prototypes(model(support), given, 5)
        return F.cross_entropy(-torch.cdist(model(query), centres).square(), asked)

    batches = [episodes(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=58)


# --- masks ---------------------------------------------------------------------------------------


class Interaction(nn.Module):
    """A walker looks at the others around."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.own, self.other = nn.Linear(4, 32), nn.Linear(4, 32)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.path = nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 6))
        self.fixed = fixed

    def forward(self, walker, others, absent):
        query, keys = self.own(walker)[:, None], self.other(others)
        if self.fixed:
            absent = absent & ~absent.all(1, keepdim=True)
        seen, _ = self.attention(query, keys, keys, key_padding_mask=absent)  # fault
        return self.path(self.norm(query + seen).squeeze(1)).unflatten(1, (3, 2))


@situation(
    "nobody-around",
    row="mask",
    cause="masked-row",
    remedies={"unmask-row", "filter-rows"},
    code=[Interaction],
)
def nobody_around(seed: int, fixed: bool) -> Run:
    """Paths of walkers with attention to the others of the scene: in the second data set some walk
    alone, so that all keys are masked."""
    g = source(seed)
    model = Interaction(fixed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def scenes(step):
        place, velocity = torch.randn(2, 16, 7, 2, generator=g)
        people = torch.cat((place, velocity), -1)
        around = torch.randint(1, 7, (16,), generator=g)
        if step >= 60:
            around[torch.rand(16, generator=g) < 0.1] = 0
            around[2] = 0
        absent = torch.arange(6) >= around[:, None]
        away = place[:, :1] - place[:, 1:]
        push = (away / away.norm(dim=2, keepdim=True).clamp(min=0.5) * ~absent[..., None]).sum(1)
        times = torch.arange(1, 4)[:, None]
        path = velocity[:, :1] * times + 0.1 * push[:, None] * times
        return people[:, 0], people[:, 1:] * ~absent[..., None], absent, path

    def step_fn(model, batch):
        *scene, path = batch
        return (model(*scene) - path).norm(dim=2).mean()

    batches = [scenes(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60)


def rotation(axis: torch.Tensor, fixed: bool) -> torch.Tensor:
    """Rodrigues' formula: the matrices that turn around ``axis`` by its length."""
    angle = axis.norm(dim=-1)
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    turned = angle > 1e-6
    if fixed:
        angle = torch.where(turned, angle, 1.0)
    first = torch.where(turned, angle.sin() / angle, 1.0)  # fault
    second = torch.where(turned, (1 - angle.cos()) / angle.square(), 0.5)  # fault
    first, second = first[..., None, None], second[..., None, None]
    return torch.eye(3) + first * cross + second * cross @ cross


@situation(
    "arm-at-rest",
    row="mask",
    cause="masked-row",
    also={"singular-operation"},
    remedies={"guard-operation"},
    code=[rotation],
)
def arm_at_rest(seed: int, fixed: bool) -> Run:
    """Poses of an arm: the last layer starts at 0 so that the arm starts at rest. `where` takes the
    value of sin(0) / 0 from the limit, but its derivative from the division. The first loss is finite."""
    g = source(seed)

    class Arm(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
            self.joints = nn.Linear(64, 9)
            nn.init.zeros_(self.joints.weight)
            nn.init.zeros_(self.joints.bias)

        def forward(self, x):
            turns = rotation(self.joints(self.body(x)).unflatten(1, (3, 3)), fixed)
            bone, at, frame = torch.tensor([0.0, 0.0, 1.0]), 0.0, torch.eye(3)
            places = []
            for turn in turns.unbind(1):
                frame = frame @ turn
                at = at + frame @ bone
                places.append(at)
            return torch.stack(places, 1)

    model = Arm()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    way = torch.randn(10, 9, generator=g) / 5

    def poses():
        x = torch.randn(32, 10, generator=g)
        at, frame, places = 0.0, torch.eye(3), []
        for turn in rotation((x @ way).unflatten(1, (3, 3)), True).unbind(1):
            frame = frame @ turn
            at = at + frame[..., 2]
            places.append(at)
        return x, torch.stack(places, 1)

    def step_fn(model, batch):
        x, places = batch
        return F.mse_loss(model(x), places)

    batches = [poses() for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


# --- optimizer -----------------------------------------------------------------------------------


class Factored(torch.optim.Optimizer):
    """Second moments by row and by column alone, as in Adafactor."""

    def __init__(self, parameters, lr, eps):
        super().__init__(parameters, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                square, state = p.grad.square() + group["eps"], self.state[p]
                if p.ndim < 2:
                    moment = state.setdefault("all", square.clone()).lerp_(square, 0.1)
                else:
                    row = state.setdefault("row", square.mean(1)).lerp_(square.mean(1), 0.1)
                    column = state.setdefault("column", square.mean(0)).lerp_(square.mean(0), 0.1)
                    moment = torch.outer(row / row.mean(), column)
                update = p.grad / moment.sqrt()  # fault
                update = update / update.square().mean().sqrt().clamp(min=1.0)
                p.sub_(group["lr"] * update)


@situation(
    "rows-without-gradient",
    row="optimizer",
    cause="optimizer-division",
    also={"singular-operation", "precision"},
    remedies={"optimizer-eps", "wider-type", "guard-operation"},
    code=[Factored],
)
def rows_without_gradient(seed: int, fixed: bool) -> Run:
    """A float16 tagger with Adafactor written by hand: its eps of 1e-30 is 0 there, and rows of words
    that do not occur divide 0 by 0."""
    g = source(seed)

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(150, 24)
            self.out = nn.Linear(48, 4)

        def forward(self, tokens):
            h = self.embed(tokens)
            before = F.pad(h, (0, 0, 1, 0))[:, :-1]
            return self.out(torch.cat((h, before), 2).tanh())

    model = Tagger().half()
    optimizer = Factored(model.parameters(), lr=5e-3, eps=1e-3 if fixed else 1e-30)
    tag = torch.randint(0, 4, (150,), generator=g)

    def step_fn(model, tokens):
        return F.cross_entropy(model(tokens).float().flatten(0, 1), tag[tokens].flatten())

    batches = [torch.randint(0, 150, (12, 10), generator=g) for _ in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "adamax-in-half",
    row="optimizer",
    cause="optimizer-division",
    remedies={"optimizer-eps", "wider-type"},
)
def adamax_in_half(seed: int, fixed: bool) -> Run:
    """A recommender with pairs of a liked and another song, in float16 with Adamax: its eps of 1e-8
    is 0 in float16, and songs that are in no pair divide 0 by 0."""
    g = source(seed)

    class Songs(nn.Module):
        def __init__(self):
            super().__init__()
            self.listener, self.song = nn.Embedding(40, 12), nn.Embedding(200, 12)
            self.popular = nn.Embedding(200, 1)

        def forward(self, listener, song):
            match = torch.einsum("bw,bw->b", self.listener(listener), self.song(song))
            return match / 4 + self.popular(song).squeeze(1)

    model = Songs().half()
    optimizer = torch.optim.Adamax(model.parameters(), lr=2e-2, eps=1e-4 if fixed else 1e-8)
    worth = torch.randn(200, generator=g)

    def pairs():
        listener = torch.randint(0, 40, (64,), generator=g)
        songs = torch.randint(0, 200, (2, 64), generator=g)
        swap = worth[songs[0]] < worth[songs[1]]
        return listener, torch.where(swap, songs.flip(0), songs)

    def step_fn(model, batch):
        listener, (liked, other) = batch
        margin = model(listener, liked) - model(listener, other)
        return -F.logsigmoid(margin.float()).mean()

    batches = [pairs() for _ in range(150)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


# --- learning rate -------------------------------------------------------------------------------


@situation(
    "floor-under-the-cosine",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate", "rewind"},
)
def floor_under_the_cosine(seed: int, fixed: bool) -> Run:
    """The loop keeps the rate above a floor by writing into the optimizer. The cosine schedule works
    out each rate from the one before: past its end, it multiplies the floor again and again."""
    g = source(seed)
    floor = 3e-3
    model = nn.Sequential(
        nn.Conv1d(2, 24, 5, stride=2), nn.ReLU(), nn.Conv1d(24, 24, 5, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(120, 32), nn.ReLU(), nn.Linear(32, 2),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=60, eta_min=floor if fixed else 0.0
    )

    def signals():
        x = torch.randn(24, 2, 32, generator=g)
        return x, torch.stack((x[:, 0].amax(1), x[:, 1, 8:16].mean(1) * 3), 1)

    def step_fn(model, batch):
        x, y = batch
        return F.mse_loss(model(x), y)

    def update(batch, backward):
        for group in optimizer.param_groups:
            group["lr"] = max(group["lr"], floor)
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        optimizer.step()

    batches = [signals() for _ in range(120)]
    return Run(
        model, optimizer, batches, step_fn, held=batches[:6], update=update, fault_at=61,
        scheduler=schedule,
    )  # fmt: skip


# --- accumulation --------------------------------------------------------------------------------


@situation(
    "divided-by-sentences",
    row="accumulation",
    cause="accumulation",
    remedies={"normalise-accumulation"},
)
def divided_by_sentences(seed: int, fixed: bool) -> Run:
    """Language modelling over three micro-batches: each adds the sum over its tokens, and before the
    step the gradients are divided by the number of sentences. Then come documents, 30 times as long."""
    g = source(seed)

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.conv = nn.Embedding(18, 24), nn.Conv1d(24, 96, 2)
            self.out = nn.Sequential(nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 18))

        def forward(self, tokens):
            h = F.pad(self.embed(tokens).mT, (1, 0))
            return self.out(F.glu(self.conv(h), 1).mT)

    model = Gated()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    follows = torch.randperm(18, generator=g)

    def texts(length):
        tokens = [torch.randint(0, 18, (4,), generator=g)]
        for _ in range(length):
            noise = torch.randint(0, 18, (4,), generator=g)
            tokens.append(torch.where(noise < 2, noise, follows[tokens[-1]]))
        return torch.stack(tokens, 1)

    def step_fn(model, tokens):
        logits = model(tokens[:, :-1]).flatten(0, 1)
        return F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum")

    def update(parts, backward):
        optimizer.zero_grad()
        sentences = sum(len(tokens) for tokens in parts)
        predicted = sum(tokens[:, 1:].numel() for tokens in parts)
        for tokens in parts:
            backward(step_fn(model, tokens), tokens)
        for p in model.parameters():
            # Five tokens in a sentence of the first phase.
            p.grad /= predicted / 5 if fixed else sentences
        optimizer.step()

    batches = [[texts(5 if step < 60 else 150) for _ in range(3)] for step in range(90)]

    def score(model):
        tokens = torch.cat(batches[0])
        return step_fn(model, tokens) / tokens[:, 1:].numel()

    return Run(model, optimizer, batches, step_fn, score=score, update=update, fault_at=60)


# --- labels, targets, initialisation, normalisation, recurrence ----------------------------------


@situation(
    "votes-in-percent",
    row="labels",
    cause="labels",
    also={"unscaled-target"},
    remedies={"fix-labels", "scale-target"},
)
def votes_in_percent(seed: int, fixed: bool) -> Run:
    """Emotions as shares of votes, by the Kullback-Leibler divergence: the table has them in percent,
    so that the targets are no probabilities."""
    g = source(seed)

    class Emotions(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(80, 32)
            self.net = nn.Sequential(
                nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6)
            )

        def forward(self, tokens):
            return self.net(self.words(tokens).mean(1)).log_softmax(1)

    model = Emotions()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    mood = 4 * torch.randn(80, 6, generator=g)

    def comments():
        tokens = torch.randint(0, 80, (32, 7), generator=g)
        return tokens, (100 * mood[tokens].mean(1).softmax(1)).round()

    def step_fn(model, batch):
        tokens, votes = batch
        return F.kl_div(model(tokens), votes / 100 if fixed else votes, reduction="batchmean")

    batches = [comments() for _ in range(140)]

    def score(model):
        tokens, votes = batches[0]
        return F.kl_div(model(tokens), votes / 100, reduction="batchmean")

    return Run(model, optimizer, batches, step_fn, score=score)


@situation("boxes-in-pixels", row="unscaled", cause="unscaled-target", remedies={"scale-target"})
def boxes_in_pixels(seed: int, fixed: bool) -> Run:
    """Localisation: the network gives the box by four numbers, and they are compared with pixels of
    the full picture, up to a thousand."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(216, 48),
        nn.ReLU(), nn.Linear(48, 4),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    size = torch.tensor([1280.0, 720.0, 1280.0, 720.0])

    def pictures():
        low = torch.randint(0, 6, (24, 2), generator=g)
        high = low + torch.randint(3, 7, (24, 2), generator=g)
        image = 0.2 * torch.randn(24, 1, 12, 12, generator=g)
        for i in range(24):
            (x, y), (right, bottom) = low[i].tolist(), high[i].tolist()
            image[i, 0, y:bottom, x:right] += 1.0
        return image, torch.cat((low, high), 1) / 12 * size

    def step_fn(model, batch):
        image, box = batch
        return F.mse_loss(model(image), box / size if fixed else box)

    batches = [pictures() for _ in range(120)]

    def score(model):
        image, box = batches[0]
        guess = model(image) if fixed else model(image) / size
        return F.mse_loss(guess, box / size)

    return Run(model, optimizer, batches, step_fn, score=score)


class Coupling(nn.Module):
    """Scales and shifts one half of its input as the other half says."""

    def __init__(self, width: int, fixed: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 2 * width))
        for layer in (self.net[0], self.net[2]):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        if fixed:
            nn.init.zeros_(self.net[2].weight)

    def forward(self, x):
        kept, moved = x.chunk(2, 1)
        log_scale, shift = self.net(kept).chunk(2, 1)
        return torch.cat((moved * log_scale.exp() + shift, kept), 1), log_scale.sum(1)


@situation(
    "flow-far-from-identity",
    row="initialisation",
    cause="initialisation",
    also={"activation", "normalisation"},
    remedies={"reinitialise", "bounded-activation"},
)
def flow_far_from_identity(seed: int, fixed: bool) -> Run:
    """A normalising flow of eight couplings whose last layers do not start at 0: each takes exp of
    what the one before has made large."""
    g = source(seed)

    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.couplings = nn.ModuleList(Coupling(3, fixed) for _ in range(8))

        def forward(self, x):
            volume = 0.0
            for coupling in self.couplings:
                x, more = coupling(x)
                volume = volume + more
            return x, volume

    model = Flow()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    mix = torch.randn(6, 6, generator=g)

    def step_fn(model, x):
        z, volume = model(x)
        return (z.square().sum(1) / 2 - volume).mean()

    batches = [(torch.randn(64, 6, generator=g) @ mix).asinh() for _ in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


class Cross(nn.Module):
    """Products of all orders of the features, one order more for each layer."""

    def __init__(self, width: int, layers: int, fixed: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.norm = nn.LayerNorm(width) if fixed else nn.Identity()

    def forward(self, first):
        x = first
        for layer in self.layers:
            x = self.norm(x + first * layer(x))
        return x


@situation(
    "crossed-features",
    row="normalisation",
    cause="normalisation",
    also={"initialisation"},
    remedies={"batch-norm", "fewer-layers", "scale-input", "reinitialise"},
)
def crossed_features(seed: int, fixed: bool) -> Run:
    """Click prediction with a cross network of six layers and no norm: each layer multiplies by the
    features once more."""
    g = source(seed)

    class Clicks(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(100, 8)
            self.cross, self.out = Cross(43, 6, fixed), nn.Linear(43, 1)

        def forward(self, fields, numbers):
            first = torch.cat((self.embed(fields).flatten(1), numbers), 1)
            return self.out(self.cross(first)).squeeze(1)

    model = Clicks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    taste = torch.randn(100, generator=g)

    def visits():
        fields = torch.randint(0, 20, (64, 5), generator=g) + 20 * torch.arange(5)
        numbers = 3 * torch.randn(64, 3, generator=g)
        click = taste[fields].sum(1) + numbers[:, 0] / 2 > 0
        return fields, numbers, click.float()

    def step_fn(model, batch):
        *features, click = batch
        return F.binary_cross_entropy_with_logits(model(*features), click)

    batches = [visits() for _ in range(150)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "simulated-machine",
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
def simulated_machine(seed: int, fixed: bool) -> Run:
    """A controller that learns by differentiating through thirty steps of the simulation of an unstable
    machine, without clipping: the gradient is multiplied in each of them."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(4, 48), nn.Tanh(), nn.Linear(48, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    machine = 1.12 * torch.linalg.qr(torch.randn(4, 4, generator=g))[0]
    force = torch.randn(2, 4, generator=g) / 2

    def step_fn(model, state):
        cost = 0.0
        for _ in range(30):
            state = state @ machine + model(state) @ force
            cost = cost + state.square().sum(1).mean()
        return cost / 30

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        if fixed:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    batches = [torch.randn(16, 4, generator=g) for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update)
