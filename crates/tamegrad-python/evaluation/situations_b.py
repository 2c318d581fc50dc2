"""The second half of the situations: other models, losses and operations than in the first, same causes."""

from __future__ import annotations

import math

import torch
from situation import Run, situation
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def source(seed: int) -> torch.Generator:
    """Random numbers of the data alone."""
    return torch.Generator().manual_seed(7000 + seed)


# --- data ----------------------------------------------------------------------------------------


@situation("gauge-without-reading", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def gauge_without_reading(seed: int, fixed: bool) -> Run:
    """River levels with an LSTM in a loop that clips: one gauge was offline, its level is NaN, and
    the clipping spreads the NaN norm over all gradients."""
    g = source(seed)

    class River(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.LSTM(5, 32, batch_first=True), nn.Linear(32, 1)

        def forward(self, rain):
            return self.out(self.rnn(rain)[0][:, -1]).squeeze(1)

    model = River()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    flow = torch.rand(4, 5, generator=g) / 2

    def weeks():
        rain = torch.randn(24, 10, 5, generator=g)
        return rain, (rain[:, -4:] * flow).sum((1, 2))

    batches = [weeks() for _ in range(120)]
    batches[67][1][11] = math.nan
    if fixed:
        batches = [(x[(known := y.isfinite())], y[known]) for x, y in batches]

    def step_fn(model, batch):
        rain, level = batch
        return F.huber_loss(model(rain), level)

    def update(batch, backward):
        optimizer.zero_grad(set_to_none=True)
        backward(step_fn(model, batch), batch)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update, fault_at=67)


@situation("laser-without-echo", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def laser_without_echo(seed: int, fixed: bool) -> Run:
    """Point clouds: the sensor writes infinity for a ray that did not come back."""
    g = source(seed)

    class Points(nn.Module):
        def __init__(self):
            super().__init__()
            self.each = nn.Sequential(nn.Linear(3, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU())
            self.all = nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 3))

        def forward(self, cloud):
            return self.all(self.each(cloud).max(1).values)

    model = Points()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def clouds(count=16):
        shape = torch.randint(0, 3, (count,), generator=g)
        cloud = torch.randn(count, 40, 3, generator=g)
        ball = cloud / cloud.norm(dim=-1, keepdim=True)
        box = cloud / cloud.abs().amax(-1, keepdim=True)
        disc = ball * torch.tensor([1.0, 1.0, 0.1])
        return torch.stack((ball, box, disc))[shape, torch.arange(count)], shape

    batches = [clouds() for _ in range(130)]
    batches[74][0][3, 17] = math.inf
    if fixed:
        batches = [(x[(sane := x.isfinite().all(2).all(1))], y[sane]) for x, y in batches]

    def step_fn(model, batch):
        cloud, shape = batch
        return F.cross_entropy(model(cloud), shape, label_smoothing=0.05)

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=74)


@situation(
    "missing-as-minus-one",
    row="data",
    cause="data",
    also={"singular-operation"},
    remedies={"filter-rows", "skip-step", "guard-operation"},
)
def missing_as_minus_one(seed: int, fixed: bool) -> Run:
    """A recommender with the logarithm of a count among its features: the export writes -1 for
    counts it does not know."""
    g = source(seed)

    class Recommender(nn.Module):
        def __init__(self):
            super().__init__()
            self.user, self.item = nn.Embedding(60, 16), nn.Embedding(40, 16)
            self.deep = nn.Sequential(nn.Linear(33, 48), nn.ReLU(), nn.Linear(48, 1))

        def forward(self, user, item, count):
            seen = torch.log1p(count)  # fault
            parts = self.user(user), self.item(item), seen[:, None]
            return self.deep(torch.cat(parts, 1)).squeeze(1)

    model = Recommender()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
    taste = torch.randn(60, generator=g), torch.randn(40, generator=g)

    def visits():
        user = torch.randint(0, 60, (48,), generator=g)
        item = torch.randint(0, 40, (48,), generator=g)
        count = torch.randint(0, 200, (48,), generator=g).float()
        click = taste[0][user] + taste[1][item] + (count + 1).log() / 2 > 2.3
        return user, item, count, click.float()

    batches = [visits() for _ in range(150)]
    for step in range(83, 150, 13):
        batches[step][2][step % 48] = -1.0
    if fixed:
        batches = [[part[b[2] >= 0] for part in b] for b in batches]

    def step_fn(model, batch):
        *features, click = batch
        return F.binary_cross_entropy_with_logits(model(*features), click)

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=83)


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(1, 24)
        self.first, self.last = nn.Conv2d(1, 24, 3, padding=1), nn.Conv2d(24, 1, 3, padding=1)
        self.middle = nn.Conv2d(24, 24, 3, padding=1)

    def forward(self, noisy, time):
        h = F.silu(self.first(noisy) + self.time(time[:, None])[:, :, None, None])
        return self.last(h + F.silu(self.middle(h)))


@situation("tile-without-data", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def tile_without_data(seed: int, fixed: bool) -> Run:
    """Diffusion on elevation tiles: where the satellite saw nothing, the file has the lowest number
    that float32 knows."""
    g = source(seed)
    model = Denoiser()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def tiles():
        slope = torch.randn(10, 1, 2, generator=g)
        line = torch.linspace(-1, 1, 10)
        metres = 800 + 300 * (slope[..., :1, None] * line + slope[..., 1:, None] * line[:, None])
        return metres

    batches = [tiles() for _ in range(110)]
    batches[58][4, 0, 7:, :3] = torch.finfo(torch.float32).min
    if fixed:
        batches = [x[x.amin((1, 2, 3)) > -1e4] for x in batches]

    def step_fn(model, metres):
        clean = (metres - 800) / 300
        time = torch.rand(len(clean))
        signal = torch.cos(time * math.pi / 2)[:, None, None, None]
        noise = torch.randn_like(clean)
        noisy = signal * clean + (1 - signal**2).sqrt() * noise
        return F.mse_loss(model(noisy, time), noise)

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=58)


@situation("weight-of-unseen", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def weight_of_unseen(seed: int, fixed: bool) -> Run:
    """Ranking with inverse propensities that were worked out beforehand: a position nobody has seen
    got the weight infinity."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(8, 48), nn.ELU(), nn.Linear(48, 48), nn.ELU(), nn.Linear(48, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    worth = torch.randn(8, generator=g)

    def lists():
        documents = torch.randn(16, 10, 8, generator=g)
        clicked = (documents @ worth).argmax(1)
        weight = 1 / (0.2 + 0.8 * torch.rand(16, generator=g))
        return documents, clicked, weight / weight.mean()

    batches = [lists() for _ in range(120)]
    batches[62][2][9] = math.inf
    if fixed:
        batches = [(x, y, weight.clamp(max=10.0)) for x, y, weight in batches]

    def step_fn(model, batch):
        documents, clicked, weight = batch
        scores = model(documents).squeeze(-1)
        surprise = scores.logsumexp(1) - scores.gather(1, clicked[:, None]).squeeze(1)
        return (weight * surprise).mean()

    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=62)


# --- number type ---------------------------------------------------------------------------------


class Capsules(nn.Module):
    """Vectors whose length says how sure they are."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, stride=2)
        self.vectors, self.head = nn.Linear(400, 32), nn.Linear(32, 4)
        self.fixed = fixed

    def forward(self, image):
        h = self.conv(image).relu().flatten(1)
        s = self.vectors(h).unflatten(1, (8, 4))
        if self.fixed:
            s = s.float()
        squared = s.square().sum(-1, keepdim=True)  # fault
        squashed = squared / (1 + squared) * s / (squared + 1e-3).sqrt()
        return self.head(squashed.flatten(1).to(self.head.weight.dtype))


@situation(
    "half-capsules",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[Capsules],
)
def half_capsules(seed: int, fixed: bool) -> Run:
    """A capsule network in float16: for an overexposed picture, the squared length of a vector does
    not fit, and the squashing function divides infinity by infinity."""
    g = source(seed)
    model = Capsules(fixed).half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def pictures(step):
        label = torch.randint(0, 4, (16,), generator=g)
        image = 2 * torch.rand(16, 1, 12, 12, generator=g)
        for i, kind in enumerate(label.tolist()):
            image[i, 0, kind // 2 * 6 : kind // 2 * 6 + 6, kind % 2 * 6 : kind % 2 * 6 + 6] += 1.0
        if step >= 56 and step % 8 == 0:
            image[6] *= 3000.0
        return image.half(), label

    def step_fn(model, batch):
        image, label = batch
        return F.cross_entropy(model(image).float(), label)

    batches = [pictures(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=56)


def info_nce(left: torch.Tensor, right: torch.Tensor, temperature: float = 0.05) -> torch.Tensor:
    alike = F.normalize(left, dim=1) @ F.normalize(right, dim=1).T
    total = torch.exp(alike / temperature).sum(1)  # fault
    return (total.log() - alike.diagonal() / temperature).mean()


@situation(
    "half-temperature",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[info_nce],
)
def half_temperature(seed: int, fixed: bool) -> Run:
    """Contrastive learning of two views in float16: once a pair agrees, exp(1 / 0.05) is more than
    float16 holds."""
    g = source(seed)

    class Towers(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Sequential(nn.Linear(12, 48), nn.GELU(), nn.Linear(48, 16))
            self.right = nn.Sequential(nn.Linear(10, 48), nn.GELU(), nn.Linear(48, 16))

        def forward(self, left, right):
            return self.left(left), self.right(right)

    model = Towers().half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    views = torch.randn(4, 12, generator=g), torch.randn(4, 10, generator=g)

    def pairs():
        scene = torch.randn(24, 4, generator=g)
        return (scene @ views[0]).half(), (scene @ views[1]).half()

    def step_fn(model, batch):
        left, right = model(*batch)
        return info_nce(*((left.float(), right.float()) if fixed else (left, right))).float()

    batches = [pairs() for _ in range(200)]

    def score(model):
        left, right = (view.float() for view in model(*batches[0]))
        alike = F.normalize(left, dim=1) @ F.normalize(right, dim=1).T
        return F.cross_entropy(alike / 0.05, torch.arange(24))

    return Run(model, optimizer, batches, step_fn, score=score)


@situation(
    "half-disparity", row="precision", cause="precision", remedies={"wider-type", "guard-operation"}
)
def half_disparity(seed: int, fixed: bool) -> Run:
    """Stereo under autocast to float16: depth is one over disparity, and for far scenes the depth
    fits into float16 while its derivative does not."""
    g = source(seed)

    class Stereo(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(
                nn.Conv1d(2, 24, 3, padding=1),
                nn.SiLU(),
                nn.Conv1d(24, 24, 3, padding=1),
                nn.SiLU(),
            )
            self.out = nn.Conv1d(26, 1, 1)

        def forward(self, rows):
            disparity = self.out(torch.cat((self.conv(rows), rows), 1)).exp()
            if fixed:
                disparity = disparity.float()
            return 1.0 / disparity  # fault

    model = Stereo()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def views(step):
        rows = torch.rand(8, 2, 24, generator=g) * 2 - 1
        if step >= 64 and step % 6 == 4:
            rows[5, 0] -= 8.0
        return rows, (-rows[:, :1] + 0.5 * rows[:, 1:]).exp()

    def step_fn(model, batch):
        rows, depth = batch
        with torch.autocast("cpu", torch.float16):
            guess = model(rows)
        return F.smooth_l1_loss(guess.float().log(), depth.log())

    batches = [views(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=64)


class LinearAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv = nn.LayerNorm(width), nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        total = q @ k.sum(1).unsqueeze(-1)  # fault
        return x + self.out(q @ (k.transpose(1, 2) @ v) / total)


@situation(
    "half-linear-attention",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[LinearAttention],
)
def half_linear_attention(seed: int, fixed: bool) -> Run:
    """Linear attention with checkpointed blocks under autocast to float16: the sums over the keys
    grow with the length, and one document in a hundred is long."""
    g = source(seed)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(30, 32)
            self.blocks = nn.ModuleList(LinearAttention(32) for _ in range(2))
            self.head = nn.Linear(32, 3)

        def forward(self, tokens):
            h = self.embed(tokens)
            for block in self.blocks:
                h = checkpoint(block, h, use_reentrant=False)
            return self.head(h.mean(1))

    model = Reader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def documents(step):
        count, length = (2, 6000) if step in (61, 88) else (16, 24)
        topic = torch.randint(0, 3, (count,), generator=g)
        common = torch.randint(0, 30, (count, length), generator=g)
        own = torch.randint(0, 10, (count, length), generator=g) + 10 * topic[:, None]
        return torch.where(torch.rand(count, length, generator=g) < 0.4, own, common), topic

    def step_fn(model, batch):
        tokens, topic = batch
        with torch.autocast("cpu", torch.bfloat16 if fixed else torch.float16):
            logits = model(tokens)
        return F.cross_entropy(logits.float(), topic)

    batches = [documents(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=61)


# --- singular functions --------------------------------------------------------------------------


@situation(
    "gamma-of-black", row="singular", cause="singular-operation", remedies={"guard-operation"}
)
def gamma_of_black(seed: int, fixed: bool) -> Run:
    """Inverse rendering: the picture is compared after gamma correction, and a black surface makes
    it the power of 0 with an exponent below 1, whose derivative is infinite."""
    g = source(seed)

    class Shading(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(2, 16, 3, padding=1), nn.ELU(), nn.Conv2d(16, 1, 3, padding=1)
            )

        def forward(self, normals):
            return F.softplus(self.net(normals))

    model = Shading()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def step_fn(model, batch):
        normals, albedo, picture = batch
        linear = albedo * model(normals)
        if fixed:
            linear = linear + 1e-6
        shown = linear.pow(1 / 2.2)  # fault
        return (shown - picture).abs().mean()

    def scenes(step):
        normals = torch.rand(6, 2, 10, 10, generator=g)
        albedo = 0.2 + 0.8 * torch.rand(6, 1, 10, 10, generator=g)
        if step >= 71 and step % 5 == 1:
            albedo[2, :, 4:7, 2:9] = 0.0
        light = normals[:, :1] * 2 + normals[:, 1:] / 2
        return normals, albedo, (albedo * light).pow(1 / 2.2)

    batches = [scenes(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=71)


class Bag(nn.Module):
    """Texts as unit vectors; word 0 is padding."""

    def __init__(self, words: int, width: int, eps: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width, padding_idx=0)
        self.mix, self.eps = nn.Linear(width, width, bias=False), eps

    def forward(self, tokens):
        v = self.mix(self.embed(tokens).sum(1))
        return v / (v.square().sum(1, keepdim=True) + self.eps).sqrt()  # fault


@situation(
    "cosine-of-nothing",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
    code=[Bag],
)
def cosine_of_nothing(seed: int, fixed: bool) -> Run:
    """Search with a cosine written by hand: a query of unknown words alone has a vector of zeros,
    whose direction is 0 / 0."""
    g = source(seed)
    model = Bag(50, 24, eps=1e-6 if fixed else 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    def searches(step):
        topic = torch.randperm(7, generator=g)
        query = torch.randint(0, 7, (7, 4), generator=g) * 7 + topic[:, None] + 1
        page = torch.randint(0, 7, (7, 9), generator=g) * 7 + topic[:, None] + 1
        if step >= 66 and step % 9 == 3:
            query[4] = 0
        return query, page

    def step_fn(model, batch):
        query, page = map(model, batch)
        return F.cross_entropy(query @ page.T * 8, torch.arange(7))

    batches = [searches(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=66)


@situation(
    "loudness-of-silence", row="singular", cause="singular-operation", remedies={"guard-operation"}
)
def loudness_of_silence(seed: int, fixed: bool) -> Run:
    """A vocoder predicts real and imaginary part without bias and is compared in loudness: in silence
    both are 0, and the hypotenuse has no derivative there."""
    g = source(seed)

    class Vocoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv1d(4, 32, 3, padding=1, bias=False)
            self.last = nn.Conv1d(32, 2, 1, bias=False)

        def forward(self, x):
            real, imaginary = self.last(self.first(x).tanh()).unbind(1)
            if fixed:
                return (real.square() + imaginary.square() + 1e-9).sqrt()
            return torch.hypot(real, imaginary)  # fault

    model = Vocoder()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
    mix = torch.randn(2, 4, generator=g) / 2

    def sounds(step):
        x = torch.randn(8, 4, 20, generator=g)
        if step >= 53 and step % 6 == 5:
            x[3, :, 12:] = 0.0
        return x, torch.einsum("kc,bct->kbt", mix, x).square().sum(0).sqrt()

    def step_fn(model, batch):
        x, loudness = batch
        return F.smooth_l1_loss(model(x), loudness, beta=0.1)

    batches = [sounds(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=53)


class GraphConvolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, least: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / math.sqrt(inputs))
        self.least = least

    def forward(self, h, edges):
        degree = edges.sum(1).clamp(min=self.least)
        scale = degree.rsqrt()  # fault
        return (scale[:, None] * edges * scale) @ h @ self.weight


@situation(
    "degree-of-isolated",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
    code=[GraphConvolution],
)
def degree_of_isolated(seed: int, fixed: bool) -> Run:
    """A graph convolution with symmetric normalisation on sampled subgraphs: a node that lost all of
    its neighbours has degree 0, and infinity times 0 is NaN."""
    g = source(seed)

    class Citations(nn.Module):
        def __init__(self):
            super().__init__()
            least = 1.0 if fixed else 0.0
            self.first = GraphConvolution(12, 32, least)
            self.second = GraphConvolution(32, 4, least)

        def forward(self, h, edges):
            return self.second(F.elu(self.first(h, edges)), edges)

    model = Citations()
    optimizer = torch.optim.NAdam(model.parameters(), lr=5e-3)

    def subgraph(step):
        field = torch.randint(0, 4, (40,), generator=g)
        alike = torch.where(field[:, None] == field, 0.5, 0.05)
        edges = (torch.rand(40, 40, generator=g) < alike).triu(1).float()
        edges += edges.T.clone()
        lost = edges.sum(1) == 0
        edges[lost, lost] = 1.0
        if step >= 60 and step % 8 == 4:
            edges[17], edges[:, 17] = 0.0, 0.0
            edges[edges.sum(1) == 0, 0] = 1.0
            edges[17] = 0.0
        h = torch.randn(40, 12, generator=g)
        h[torch.arange(40), field] += 1.0
        return h, edges, field

    def step_fn(model, batch):
        h, edges, field = batch
        return F.cross_entropy(model(h, edges), field)

    batches = [subgraph(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60)


def divergence(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    surplus = teacher - student.exp()
    return (surplus * (teacher.log() - student)).sum(-1).mean()  # fault


@situation(
    "divergence-of-zero",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation"},
    code=[divergence],
)
def divergence_of_zero(seed: int, fixed: bool) -> Run:
    """Distillation with a divergence of both directions written by hand: from the second shard on,
    the teacher's probabilities are stored in 8 bits, and many are 0."""
    g = source(seed)

    class Student(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(3, 24, 5, stride=2), nn.Linear(24, 6)

        def forward(self, x):
            return self.head(F.hardswish(self.conv(x)).mean(2)).log_softmax(-1)

    model = Student()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    big = torch.randn(3, 6, generator=g) * 3

    def shard(step):
        x = torch.randn(24, 3, 20, generator=g) + torch.randn(24, 3, 1, generator=g)
        teacher = (x.mean(2) @ big).softmax(-1)
        return x, (teacher * 255).round() / 255 if step >= 55 else teacher

    def step_fn(model, batch):
        x, teacher = batch
        return divergence(teacher.clamp(min=1e-7) if fixed else teacher, model(x))

    batches = [shard(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=55)


class Critic(nn.Module):
    """A score for sequences; padded places do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.each = nn.Sequential(nn.Linear(3, 48), nn.LeakyReLU(0.2), nn.Linear(48, 48), nn.Tanh())
        self.last = nn.Linear(48, 1)

    def forward(self, x, there):
        return self.last((self.each(x) * there[..., None]).sum(1) / 5).squeeze(1)


@situation(
    "gradient-penalty",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
)
def gradient_penalty(seed: int, fixed: bool) -> Run:
    """A Wasserstein GAN on trajectories, two optimizers: for one that is padding throughout, the
    critic's gradient is 0, and the penalty on its norm is differentiated at the root of 0."""
    g = source(seed)
    generator = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 15))
    critic = Critic()
    model = nn.ModuleDict({"generator": generator, "critic": critic})
    optimizer = torch.optim.Adam(critic.parameters(), lr=4e-3, betas=(0.5, 0.9))
    other = torch.optim.Adam(generator.parameters(), lr=4e-3, betas=(0.5, 0.9))

    def drawn(model, count=32):
        return model["generator"](torch.randn(count, 4)).unflatten(1, (5, 3))

    def step_fn(model, batch):
        real, there = batch
        with torch.no_grad():
            false = drawn(model)
        between = torch.lerp(false, real, torch.rand(32, 1, 1)).requires_grad_()
        critic = model["critic"]
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(critic(between, there).sum(), between, create_graph=True)
            squared = slope.square().sum((1, 2))
            length = torch.sqrt(squared + 1e-12 if fixed else squared)  # fault
        gap = critic(false, there).mean() - critic(real, there).mean()
        return gap + (length - 1).square().mean()

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        optimizer.step()
        other.zero_grad()
        (-critic(drawn(model), batch[1]).mean()).backward()
        other.step()

    def paths(step):
        real = torch.randn(32, 5, 3, generator=g) * 0.3 + torch.tensor([1.5, -1.0, 0.5])
        length = torch.randint(2, 6, (32,), generator=g)
        if step >= 68 and step % 7 == 5:
            length[13] = 0
        there = (torch.arange(5) < length[:, None]).float()
        return real * there[..., None], there

    batches = [paths(step) for step in range(140)]

    def score(model):
        return (drawn(model, 256).mean((0, 1)) - torch.tensor([1.5, -1.0, 0.5])).norm()

    return Run(model, optimizer, batches, step_fn, score=score, update=update, fault_at=68)


class Interpolation(nn.Module):
    """Features at new points, from all known points by the inverse of the distance."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.each, self.out = nn.Sequential(nn.Linear(4, 48), nn.Tanh()), nn.Linear(48, 1)
        self.eps = eps

    def forward(self, known, values, wanted):
        h = self.each(torch.cat((known, values), -1))
        apart = (wanted[:, :, None] - known[:, None]).square().sum(-1)
        near = 1 / (apart + self.eps)  # fault
        return self.out((near / near.sum(-1, keepdim=True)) @ h).squeeze(-1)


@situation(
    "wanted-at-a-known-point",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation", "filter-rows"},
    code=[Interpolation],
)
def wanted_at_a_known_point(seed: int, fixed: bool) -> Run:
    """Interpolation between weather stations by inverse distance: somebody asks for the place of a
    station, and infinity is divided by infinity."""
    g = source(seed)
    model = Interpolation(eps=1e-6 if fixed else 0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def maps(step):
        known, wanted = (torch.rand(8, count, 3, generator=g) for count in (30, 12))
        slope = torch.randn(8, 3, 1, generator=g)
        if step >= 63 and step % 8 == 7:
            wanted[5, 3] = known[5, 20]
        return known, known @ slope, wanted, (wanted @ slope).squeeze(-1)

    def step_fn(model, batch):
        *given, warmth = batch
        return F.mse_loss(model(*given), warmth)

    batches = [maps(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=63)


# --- empty sets ----------------------------------------------------------------------------------


@situation(
    "nothing-visible",
    row="empty-set",
    cause="empty-set",
    remedies={"drop-empty-batch", "guard-operation"},
)
def nothing_visible(seed: int, fixed: bool) -> Run:
    """Key points and a class with learned weights of the two losses: a batch of crops has no visible
    point, the mean over none is NaN, and so is the gradient of its weight."""
    g = source(seed)

    class Pose(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(18, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU())
            self.points, self.kind = nn.Linear(64, 8), nn.Linear(64, 3)
            self.doubt = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            h = self.body(x)
            return self.points(h).unflatten(1, (4, 2)), self.kind(h)

    model = Pose()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    place = torch.randn(18, 8, generator=g) / 4

    def step_fn(model, batch):
        x, truth, visible, kind = batch
        points, logits = model(x)
        if fixed and not visible.any():
            near = points.sum() * 0
        else:
            near = F.l1_loss(points[visible], truth[visible])  # fault
        losses = torch.stack((near, F.cross_entropy(logits, kind)))
        return (losses * (-model.doubt).exp() + model.doubt).sum()

    def crops(step):
        x = torch.randn(12, 18, generator=g)
        visible = torch.rand(12, 4, generator=g) < 0.7
        if step >= 73 and step % 9 == 1:
            visible[:] = False
        return x, (x @ place).unflatten(1, (4, 2)), visible, x[:, :3].argmax(1)

    batches = [crops(step) for step in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=73)


def supervised_contrast(h: torch.Tensor, label: torch.Tensor, least: float) -> torch.Tensor:
    h = F.normalize(h, dim=1)
    others = ~torch.eye(len(h), dtype=torch.bool)
    scores = h @ h.T / 0.2
    chance = scores - (scores.exp() * others).sum(1, keepdim=True).log()
    alike = ((label[:, None] == label) & others).float()
    return -((chance * alike).sum(1) / alike.sum(1).clamp(min=least)).mean()  # fault


@situation(
    "only-one-of-its-kind",
    row="empty-set",
    cause="empty-set",
    also={"singular-operation"},
    remedies={"drop-empty-batch", "guard-operation", "larger-batch", "filter-rows"},
    code=[supervised_contrast],
)
def only_one_of_its_kind(seed: int, fixed: bool) -> Run:
    """Supervised contrastive learning: an animal of a rare species is alone in its batch, and the
    mean over its positives is 0 / 0."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv1d(2, 24, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(2), nn.Flatten(), nn.Linear(48, 16)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    call = torch.randn(9, 2, 1, generator=g)

    def recordings(step):
        kind = torch.arange(8).repeat_interleave(3)
        if step >= 59 and step % 8 == 3:
            kind[7] = 8
        return torch.randn(24, 2, 16, generator=g) + 2 * call[kind], kind

    def step_fn(model, batch):
        x, kind = batch
        return supervised_contrast(model(x), kind, least=1.0 if fixed else 0.0)

    batches = [recordings(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=59)


@situation("only-background", row="empty-set", cause="empty-set", remedies={"drop-empty-batch"})
def only_background(seed: int, fixed: bool) -> Run:
    """Segmentation of vessels with class weights, 0 for the background: slices at the border of the
    organ have background alone, and the weighted mean is divided by 0."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=2, dilation=2),
        nn.ReLU(), nn.Conv2d(16, 3, 1),
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    weight = torch.tensor([0.0, 1.0, 1.0])

    def slices(step):
        label = torch.zeros(3, 12, 12, dtype=torch.long)
        if not (step >= 65 and step % 10 == 5):
            for i in range(3):
                column, row = torch.randint(0, 10, (2,), generator=g).tolist()
                label[i, :, column : column + 2] = 1
                label[i, row : row + 2] = 2
        return label[:, None] * 0.7 + 0.4 * torch.randn(3, 1, 12, 12, generator=g), label

    def step_fn(model, batch):
        image, label = batch
        return F.cross_entropy(model(image), label, weight=weight)  # fault

    batches = [slices(step) for step in range(120)]
    held = batches[:6]
    if fixed:
        batches = [(x, y) for x, y in batches if y.any()]
    return Run(model, optimizer, batches, step_fn, held=held, fault_at=65)


@situation(
    "molecule-without-atoms",
    row="empty-set",
    cause="empty-set",
    also={"singular-operation"},
    remedies={"drop-empty-batch", "guard-operation", "filter-rows"},
)
def molecule_without_atoms(seed: int, fixed: bool) -> Run:
    """A network over sets of atoms averages over each molecule; hydrogens are dropped, and H2 has
    no atom left."""
    g = source(seed)

    class Molecules(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(6, 24)
            self.atom = nn.Sequential(nn.Linear(24, 48), nn.SiLU(), nn.Linear(48, 24))
            self.energy = nn.Linear(24, 1)

        def forward(self, kind, owner, count):
            h = self.atom(self.embed(kind))
            total = h.new_zeros(count, 24).index_add(0, owner, h)
            atoms = torch.bincount(owner, minlength=count)
            if fixed:
                atoms = atoms.clamp(min=1)
            mean = total / atoms[:, None]  # fault
            return self.energy(mean).squeeze(1)

    model = Molecules()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    energy = torch.randn(6, generator=g)

    def molecules(step):
        atoms = torch.randint(2, 9, (20,), generator=g)
        if step >= 57 and step % 11 == 2:
            atoms[7] = 0
        owner = torch.arange(20).repeat_interleave(atoms)
        kind = torch.randint(0, 6, (len(owner),), generator=g)
        mean = torch.zeros(20).index_add(0, owner, energy[kind]) / atoms.clamp(min=1)
        return kind, owner, 20, mean

    def step_fn(model, batch):
        kind, owner, count, target = batch
        return F.mse_loss(model(kind, owner, count), target)

    batches = [molecules(step) for step in range(130)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=57)


# --- masks ---------------------------------------------------------------------------------------


class Pointer(nn.Module):
    """Chooses the next of the cities that are left."""

    def __init__(self, fixed: bool) -> None:
        super().__init__()
        self.city = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 32))
        self.here = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 32))
        self.fixed = fixed

    def forward(self, cities, here, left):
        scores = torch.einsum("bnw,bw->bn", self.city(cities), self.here(here))
        if self.fixed:
            left = left | ~left.any(1, keepdim=True)
        scores = scores + left.float().log()
        return torch.log_softmax(scores, dim=1)  # fault


@situation(
    "finished-tour",
    row="mask",
    cause="masked-row",
    remedies={"unmask-row", "filter-rows"},
    code=[Pointer],
)
def finished_tour(seed: int, fixed: bool) -> Run:
    """A pointer network for tours of unequal length: a finished tour has no city left to choose. Its
    loss has the weight 0, and 0 times NaN is NaN."""
    g = source(seed)
    model = Pointer(fixed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def tours(step):
        cities, here = torch.rand(32, 8, 2, generator=g), torch.rand(32, 2, generator=g)
        left = torch.rand(32, 8, generator=g) < 0.6
        left[:, 0] = True
        if step >= 62 and step % 7 == 6:
            left[[3, 19]] = False
        distance = (cities - here[:, None]).norm(dim=-1)
        return cities, here, left, torch.where(left, distance, 9.0).argmin(1)

    def step_fn(model, batch):
        cities, here, left, nearest = batch
        logs = model(cities * 4 - 2, here * 4 - 2, left)
        running = left.any(1).float()
        return (F.nll_loss(logs, nearest, reduction="none") * running).sum() / running.sum()

    batches = [tours(step) for step in range(130)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=62)


@situation(
    "entropy-of-forbidden",
    row="mask",
    cause="masked-row",
    also={"singular-operation"},
    remedies={"guard-operation", "unmask-row"},
)
def entropy_of_forbidden(seed: int, fixed: bool) -> Run:
    """A policy on a board with an entropy bonus: the first levels allow all moves, later ones forbid
    some by -inf, and the entropy has 0 times -inf."""
    g = source(seed)

    class Player(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(2, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 1, 3, padding=1)
            )

        def forward(self, board):
            return self.body(board).flatten(1)

    model = Player()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def games(step):
        board = torch.randn(24, 2, 4, 4, generator=g)
        allowed = torch.ones(24, 16, dtype=torch.bool)
        if step >= 51:
            allowed = torch.rand(24, 16, generator=g) < 0.8
        gain = (board[:, 0] - board[:, 1]).flatten(1)
        move = gain.masked_fill(~allowed, -99.0).argmax(1)
        return board, allowed, move

    def step_fn(model, batch):
        board, allowed, move = batch
        lowest = -1e9 if fixed else -math.inf
        logs = model(board).masked_fill(~allowed, lowest).log_softmax(1)
        entropy = -(logs.exp() * logs).sum(1)  # fault
        return F.nll_loss(logs, move) - 0.01 * entropy.mean()

    batches = [games(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=51)


class Softplus(nn.Module):
    def forward(self, x):
        return torch.where(x > 20, x, torch.log1p(torch.exp(x)))  # fault


@situation(
    "softplus-by-hand",
    row="mask",
    cause="masked-row",
    also={"singular-operation"},
    remedies={"guard-operation"},
    code=[Softplus],
)
def softplus_by_hand(seed: int, fixed: bool) -> Run:
    """Demand with a distribution of Poisson: `where` takes the value of the softplus from the safe
    branch, but a large input sends NaN backward through the other."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(6, 48), nn.Tanh(), nn.Linear(48, 1), nn.Softplus() if fixed else Softplus()
    )
    with torch.no_grad():
        # Trained on smaller shops before.
        model[2].weight *= 10.0
        model[2].bias.fill_(4.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    pull = torch.rand(6, generator=g)

    def shops(step):
        x = torch.randn(32, 6, generator=g)
        rate = 30 + 12 * (x @ pull).tanh()
        if step >= 30:
            rate = rate * min(1 + (step - 30) / 15, 5)
        return x, torch.poisson(rate, generator=g)

    def step_fn(model, batch):
        x, sold = batch
        return F.poisson_nll_loss(model(x).squeeze(1), sold, log_input=False)

    batches = [shops(step) for step in range(160)]
    return Run(model, optimizer, batches, step_fn, held=batches[120:126], fault_at=30)


# --- optimizer -----------------------------------------------------------------------------------


class Lars(torch.optim.Optimizer):
    """Steps as long as the layer's weights allow."""

    def __init__(self, parameters, lr, eps):
        super().__init__(parameters, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                trust = torch.ones(())
                if p.ndim > 1:
                    trust = p.norm() / (p.grad.norm() + group["eps"])  # fault
                p.sub_(group["lr"] * trust * p.grad)


@situation(
    "trust-without-gradient",
    row="optimizer",
    cause="optimizer-division",
    also={"singular-operation"},
    remedies={"optimizer-eps", "guard-operation", "skip-step"},
    code=[Lars],
)
def trust_without_gradient(seed: int, fixed: bool) -> Run:
    """Two tasks with a layer-wise optimizer written by hand: where a batch has no example of one
    task, the gradient of its head is 0, and the weights' norm is divided by it."""
    g = source(seed)

    class Tasks(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(10, 64), nn.GELU(), nn.Linear(64, 32), nn.GELU())
            self.heads = nn.ModuleList((nn.Linear(32, 3), nn.Linear(32, 5)))

        def forward(self, x):
            h = self.body(x)
            return [head(h) for head in self.heads]

    model = Tasks()
    optimizer = Lars(model.parameters(), lr=0.02, eps=1e-6 if fixed else 0.0)

    def mixed(step):
        x = torch.randn(24, 10, generator=g)
        task = torch.randint(0, 2, (24,), generator=g)
        if step >= 76 and step % 9 == 4:
            task[:] = 0
        return x, task, torch.where(task == 0, x[:, :3].argmax(1), x[:, 3:8].argmax(1))

    def step_fn(model, batch):
        x, task, label = batch
        loss = 0.0
        for i, logits in enumerate(model(x)):
            target = torch.where(task == i, label, 0)
            each = F.cross_entropy(logits, target, reduction="none")
            loss = loss + (each * (task == i)).mean()
        return loss

    batches = [mixed(step) for step in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=76)


@situation(
    "rmsprop-in-half",
    row="optimizer",
    cause="optimizer-division",
    remedies={"optimizer-eps", "wider-type"},
)
def rmsprop_in_half(seed: int, fixed: bool) -> Run:
    """Baskets as 0 and 1 in a float16 network with RMSprop: goods that nobody bought have no gradient,
    and its eps of 1e-8 is 0 in float16."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(200, 32), nn.LeakyReLU(), nn.LayerNorm(32), nn.Linear(32, 4)
    ).half()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, eps=1e-3 if fixed else 1e-8)
    kind = torch.randint(0, 4, (200,), generator=g)

    def baskets():
        basket = (torch.rand(24, 200, generator=g) < 0.04).half()
        return basket, (basket.float() @ F.one_hot(kind, 4).float()).argmax(1)

    batches = [baskets() for _ in range(160)]

    def step_fn(model, batch):
        basket, label = batch
        return F.cross_entropy(model(basket).float(), label)

    return Run(model, optimizer, batches, step_fn, held=batches[:6])


class OwnAdam(torch.optim.Optimizer):
    def __init__(self, parameters, lr, first):
        super().__init__(parameters, {"lr": lr})
        self.steps = first

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
                mean, square = state["mean"].lerp_(p.grad, 0.1), state["square"]
                square.lerp_(p.grad.square(), 0.001)
                mean = mean / (1 - 0.9 ** torch.tensor(float(self.steps)))  # fault
                square = square / (1 - 0.999 ** torch.tensor(float(self.steps)))
                p.sub_(group["lr"] * mean / (square.sqrt() + 1e-8))
        self.steps += 1


@situation(
    "correction-of-step-zero",
    row="own-code",
    cause="optimizer-division",
    also={"singular-operation"},
    remedies={"optimizer-eps", "guard-operation"},
    code=[OwnAdam],
)
def correction_of_step_zero(seed: int, fixed: bool) -> Run:
    """Adam written by hand counts its steps from 0, so that the first bias correction divides by 0."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(2, 48), nn.Softsign(), nn.Linear(48, 48), nn.Softsign(), nn.Linear(48, 1))  # fmt: skip
    optimizer = OwnAdam(model.parameters(), lr=5e-3, first=1 if fixed else 0)

    def step_fn(model, x):
        return F.mse_loss(model(x).squeeze(1), (3 * x[:, 0]).sin() * x[:, 1])

    batches = [torch.rand(64, 2, generator=g) * 2 - 1 for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


# --- learning rate -------------------------------------------------------------------------------


@situation(
    "peak-of-one-cycle",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate"},
)
def peak_of_one_cycle(seed: int, fixed: bool) -> Run:
    """The one-cycle schedule overrides the optimizer's rate: its peak was copied from a recipe for
    another network."""
    g = source(seed)

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
            self.blocks = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
            self.head = nn.Linear(16, 3)

        def forward(self, x):
            h = self.stem(x)
            for block in self.blocks:
                h = h + block(h.relu())
            return self.head(h.mean((2, 3)))

    model = Residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    peak = 0.05 if fixed else 2.0
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=160)

    def textures():
        kind = torch.randint(0, 3, (16,), generator=g)
        x = torch.randn(16, 1, 12, 12, generator=g)
        flat = x.mean(2, keepdim=True).expand_as(x), x.mean(3, keepdim=True).expand_as(x), x / 3
        return 3 * torch.stack(flat)[kind, torch.arange(16)], kind

    def step_fn(model, batch):
        x, kind = batch
        return F.cross_entropy(model(x), kind)

    batches = [textures() for _ in range(160)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], scheduler=schedule)


@situation(
    "decay-upside-down",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate", "rewind"},
)
def decay_upside_down(seed: int, fixed: bool) -> Run:
    """A step schedule with gamma 30 in place of 0.3: at the milestone the rate jumps up."""
    g = source(seed)

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.out = nn.GRU(3, 32, batch_first=True), nn.Linear(32, 2)

        def forward(self, x):
            return self.out(self.rnn(x)[0]).cumsum(1)

    model = Sum()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [70], gamma=0.3 if fixed else 30.0)
    mix = torch.randn(3, 2, generator=g) / 2

    def walks():
        x = torch.randn(16, 8, 3, generator=g)
        return x, (x @ mix).cumsum(1)

    def step_fn(model, batch):
        x, y = batch
        return F.mse_loss(model(x), y)

    batches = [walks() for _ in range(130)]
    return Run(
        model, optimizer, batches, step_fn, held=batches[:6], fault_at=70, scheduler=schedule
    )


# --- accumulation --------------------------------------------------------------------------------


@situation(
    "sum-over-packed-tokens",
    row="accumulation",
    cause="accumulation",
    remedies={"normalise-accumulation"},
)
def sum_over_packed_tokens(seed: int, fixed: bool) -> Run:
    """Language modelling with the sum over the tokens as loss: when the sentences are packed into
    long windows, each batch has forty times as many."""
    g = source(seed)

    class Convolutional(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(16, 24)
            self.conv, self.head = nn.Conv1d(24, 48, 3), nn.Linear(48, 16)

        def forward(self, tokens):
            h = F.pad(self.embed(tokens).transpose(1, 2), (2, 0))
            return self.head(self.conv(h).relu().transpose(1, 2))

    model = Convolutional()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.004, momentum=0.9)
    follows = torch.randperm(16, generator=g)

    def windows(length):
        tokens = [torch.randint(0, 16, (8,), generator=g)]
        for _ in range(length - 1):
            noise = torch.randint(0, 16, (8,), generator=g)
            tokens.append(torch.where(noise < 2, noise, follows[tokens[-1]]))
        return torch.stack(tokens, 1)

    def step_fn(model, tokens):
        logits = model(tokens)[:, :-1].flatten(0, 1)
        total = F.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum")
        return total * (40 / len(logits)) if fixed else total

    batches = [windows(6 if step < 60 else 201) for step in range(110)]

    def score(model):
        tokens = batches[0]
        return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=60)


@situation(
    "one-of-two-cleared",
    row="accumulation",
    cause="accumulation",
    remedies={"normalise-accumulation"},
)
def one_of_two_cleared(seed: int, fixed: bool) -> Run:
    """An autoencoder with an optimizer each for encoder and decoder: the loop clears the gradients of
    the decoder twice, and those of the encoder never."""
    g = source(seed)
    model = nn.ModuleDict(
        {
            "encoder": nn.Sequential(nn.Linear(20, 48), nn.Mish(), nn.Linear(48, 6)),
            "decoder": nn.Sequential(nn.Linear(6, 48), nn.Mish(), nn.Linear(48, 20)),
        }
    )
    optimizer = torch.optim.SGD(model["encoder"].parameters(), lr=0.05, momentum=0.9)
    other = torch.optim.SGD(model["decoder"].parameters(), lr=0.05, momentum=0.9)
    mix = torch.randn(4, 20, generator=g)
    batches = [torch.randn(24, 4, generator=g) @ mix for _ in range(160)]

    def step_fn(model, x):
        return F.mse_loss(model["decoder"](model["encoder"](x)), x)

    def update(x, backward):
        for cleared in (optimizer if fixed else other, other):
            cleared.zero_grad()
        backward(step_fn(model, x), x)
        optimizer.step()
        other.step()

    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update)


# --- labels, targets, initialisation, normalisation, activation, recurrence ----------------------


@situation(
    "clicks-as-labels", row="labels", cause="labels", remedies={"fix-labels", "scale-target"}
)
def clicks_as_labels(seed: int, fixed: bool) -> Run:
    """Several labels for each page, trained as yes and no: the table has how often each was clicked,
    up to some hundreds, in place of whether."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 9)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    interest = torch.randn(16, 9, generator=g)

    def pages():
        x = torch.randn(32, 16, generator=g)
        often = torch.poisson(60 * torch.rand(32, 9, generator=g) ** 2, generator=g)
        return x, (often + 1) * (x @ interest > 0)

    def step_fn(model, batch):
        x, clicks = batch
        target = (clicks > 0).float() if fixed else clicks
        return F.binary_cross_entropy_with_logits(model(x), target)

    batches = [pages() for _ in range(130)]

    def score(model):
        x, clicks = batches[0]
        return F.binary_cross_entropy_with_logits(model(x), (clicks > 0).float())

    return Run(model, optimizer, batches, step_fn, score=score)


@situation(
    "points-of-a-game",
    row="unscaled",
    cause="unscaled-target",
    remedies={"scale-target"},
)
def points_of_a_game(seed: int, fixed: bool) -> Run:
    """Q-learning with a slow copy of the network: the rewards are the points of the game, thousands
    for each move."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(6, 48), nn.ELU(), nn.Linear(48, 48), nn.ELU(), nn.Linear(48, 3))
    slow = nn.Sequential(nn.Linear(6, 48), nn.ELU(), nn.Linear(48, 48), nn.ELU(), nn.Linear(48, 3))
    slow.load_state_dict(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    worth = torch.randn(6, 3, generator=g)

    def moves():
        seen, then = torch.randn(2, 48, 6, generator=g)
        action = torch.randint(0, 3, (48,), generator=g)
        points = 2500 * (seen @ worth).gather(1, action[:, None]).squeeze(1)
        return seen, action, points, then

    def step_fn(model, batch):
        seen, action, points, then = batch
        reward = points / 2500 if fixed else points
        with torch.no_grad():
            target = reward + 0.3 * slow(then).amax(1)
        return F.mse_loss(model(seen).gather(1, action[:, None]).squeeze(1), target)

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(slow.parameters(), model.parameters(), strict=True):
                old.lerp_(new, 0.02)

    batches = [moves() for _ in range(140)]

    def score(model):
        seen, action, points, _ = batches[0]
        guess = model(seen).gather(1, action[:, None]).squeeze(1)
        return (guess / (1 if fixed else 2500) - points / 2500).square().mean()

    return Run(model, optimizer, batches, step_fn, score=score, update=update)


@situation(
    "weights-from-zero-to-one",
    row="initialisation",
    cause="initialisation",
    remedies={"reinitialise", "batch-norm"},
)
def weights_from_zero_to_one(seed: int, fixed: bool) -> Run:
    """A convolutional autoencoder whose weights were drawn by `uniform_` without bounds: all are
    positive, and each layer multiplies the mean by half its fan-in."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 1, 3, padding=1),
    )  # fmt: skip
    for layer in model:
        if isinstance(layer, nn.Conv2d):
            if fixed:
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            else:
                nn.init.uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step_fn(model, x):
        noisy = x + 0.3 * torch.randn_like(x)
        return F.mse_loss(model(noisy), x)

    batches = [torch.rand(12, 1, 8, 8, generator=g).round() for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


class Residual(nn.Module):
    def __init__(self, width: int, fixed: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.norm = nn.LayerNorm(width) if fixed else nn.Identity()
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        return x + self.second(F.relu(self.first(self.norm(x))))


@situation(
    "residual-without-norm",
    row="normalisation",
    cause="normalisation",
    also={"initialisation"},
    remedies={"batch-norm", "fewer-layers", "reinitialise"},
)
def residual_without_norm(seed: int, fixed: bool) -> Run:
    """A deep residual network over tokens whose norms were taken out for speed: each block multiplies
    the variance by three."""
    g = source(seed)
    model = nn.Sequential(
        nn.Embedding(40, 32),
        *(Residual(32, fixed) for _ in range(16)),
        nn.LayerNorm(32) if fixed else nn.Identity(),
        nn.Linear(32, 5),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    tag = torch.randint(0, 5, (40,), generator=g)
    batches = [torch.randint(0, 40, (8, 12), generator=g) for _ in range(80)]

    def step_fn(model, tokens):
        return F.cross_entropy(model(tokens).flatten(0, 1), tag[tokens].flatten())

    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "squares-for-encryption",
    row="activation",
    cause="activation",
    also={"normalisation"},
    remedies={"bounded-activation", "batch-norm", "fewer-layers"},
)
def squares_for_encryption(seed: int, fixed: bool) -> Run:
    """A network for encrypted data has the square as activation, since only sums and products can
    be computed: values grow as a double exponential of the depth."""
    g = source(seed)

    class Square(nn.Module):
        def forward(self, x):
            return x.square()

    layers: list[nn.Module] = []
    for inputs in (16, 64, 64, 64):
        layers += [nn.Linear(inputs, 64), nn.Tanh() if fixed else Square()]
    model = nn.Sequential(*layers, nn.Linear(64, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step_fn(model, x):
        return F.mse_loss(model(x).squeeze(1), x[:, :4].sum(1).tanh())

    batches = [2 * torch.randn(32, 16, generator=g) for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "longer-songs",
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
def longer_songs(seed: int, fixed: bool) -> Run:
    """A rectified recurrent network, initialised with the identity, without clipping: it learns on
    short pieces, and on long ones the gradient through time explodes."""
    g = source(seed)

    class Identity(nn.Module):
        def __init__(self):
            super().__init__()
            self.read, self.out = nn.Linear(4, 40), nn.Linear(40, 4)
            self.again = nn.Linear(40, 40, bias=False)
            with torch.no_grad():
                self.again.weight.copy_(torch.eye(40) + 0.03 * torch.randn(40, 40))

        def forward(self, x):
            h, said = x.new_zeros(len(x), 40), []
            for now in self.read(x).unbind(1):
                h = F.relu(now + self.again(h))
                said.append(self.out(h))
            return torch.stack(said, 1)

    model = Identity()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def songs(length):
        x = torch.randn(12, length, 4, generator=g)
        return x, torch.cat((x[:, :1], x[:, 1:] + x[:, :-1] / 2), 1)

    def step_fn(model, batch):
        x, y = batch
        return F.mse_loss(model(x), y)

    def update(batch, backward):
        optimizer.zero_grad()
        backward(step_fn(model, batch), batch)
        if fixed:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()

    batches = [songs(6 if step < 30 else 120) for step in range(70)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update, fault_at=30)
