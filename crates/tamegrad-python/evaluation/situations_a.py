"""The first half of the situations: small runs, written as their authors would, that break as theirs did."""

from __future__ import annotations

import math

import torch
from situation import Run, situation
from torch import nn
from torch.nn import functional as F


def source(seed: int) -> torch.Generator:
    """Random numbers of the data alone."""
    return torch.Generator().manual_seed(9000 + seed)


# --- data ----------------------------------------------------------------------------------------


@situation("nan-feature", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def nan_feature(seed: int, fixed: bool) -> Run:
    """Credit scoring from a table: one applicant has no income, and the column was not imputed."""
    g = source(seed)
    table = torch.randn(140 * 32, 12, generator=g) * torch.logspace(-1, 1, 12)
    label = ((table / torch.logspace(-1, 1, 12))[:, :4].sum(1) > 0).long()
    table = (table - table.mean(0)) / table.std(0)
    table[92 * 32 + 7, 5] = math.nan

    model = nn.Sequential(
        nn.Linear(12, 64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, 2),
    )
    rows = [slice(i * 32, i * 32 + 32) for i in range(140)]
    batches = [(table[r], label[r]) for r in rows]
    if fixed:
        batches = [(x[(known := x.isfinite().all(1))], y[known]) for x, y in batches]

    def step_fn(model, batch):
        x, y = batch
        return F.cross_entropy(model(x), y)

    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    return Run(model, optimizer, batches, step_fn, held=batches[:8], fault_at=92)


class ActorCritic(nn.Module):
    def __init__(self, observed: int, actions: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(observed, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.policy, self.value = nn.Linear(64, actions), nn.Linear(64, 1)

    def forward(self, x):
        h = self.body(x)
        return self.policy(h), self.value(h).squeeze(-1)


def discounted(rewards: torch.Tensor, discount: float = 0.9) -> torch.Tensor:
    total, returns = torch.zeros(rewards.shape[1]), []
    for reward in rewards.flip(0):
        total = reward + discount * total
        returns.append(total)
    return torch.stack(returns[::-1])


@situation("infinite-reward", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def infinite_reward(seed: int, fixed: bool) -> Run:
    """Actor-critic: the reward is the logarithm of a distance, and an agent stood on the goal."""
    g = source(seed)
    model = ActorCritic(6, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def rollout(step):
        seen = torch.randn(12, 8, 6, generator=g)
        best = seen[..., :4].argmax(-1)
        taken = torch.where(
            torch.rand(12, 8, generator=g) < 0.5, best, torch.randint(0, 4, (12, 8), generator=g)
        )
        distance = torch.rand(12, 8, generator=g) * 0.3 + (taken != best) * 0.5 + 0.05
        if step == 70:
            distance[3, 2] = 0.0
        reward = -distance.log()
        if fixed:
            reward = reward.clamp(max=5.0)
        return seen.flatten(0, 1), taken.flatten(), discounted(reward, 0.5).flatten()

    def step_fn(model, batch):
        seen, taken, returns = batch
        logits, value = model(seen)
        advantage = (returns - value).detach()
        chosen = logits.log_softmax(-1).gather(1, taken[:, None]).squeeze(1)
        return -(chosen * advantage).mean() + 0.5 * F.mse_loss(value, returns)

    batches = [rollout(step) for step in range(120)]

    def score(model):
        return F.mse_loss(model(batches[0][0])[1], batches[0][2])

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=70)


class ConvNet(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.block(self.stem(x)).amax((2, 3)))


def pictures(count: int, g: torch.Generator, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a bright stripe whose colour and direction is the class."""
    label = torch.randint(0, 4, (count,), generator=g)
    image = torch.rand(count, 3, size, size, generator=g) * 0.5
    for i, kind in enumerate(label.tolist()):
        at = int(torch.randint(0, size, (1,), generator=g))
        where = (kind % 3, at) if kind % 2 else (kind % 3, slice(None), at)
        image[(i, *where)] += 0.8
    return (image - 0.3) / 0.25, label


@situation("corrupt-image", row="data", cause="data", remedies={"filter-rows", "skip-step"})
def corrupt_image(seed: int, fixed: bool) -> Run:
    """A convolutional network: a damaged archive left uninitialised memory in
    six images."""
    g = source(seed)
    model = ConvNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    batches = [pictures(24, g) for _ in range(120)]
    held = batches[:6]
    batches[81][0][9:15, :, :5] = torch.rand(6, 3, 5, 12, generator=g) * 1e30
    if fixed:
        batches = [(x[(sane := x.abs().amax((1, 2, 3)) < 1e3)], y[sane]) for x, y in batches]

    def step_fn(model, batch):
        images, labels = batch
        return F.cross_entropy(model(images), labels)

    return Run(model, optimizer, batches, step_fn, held=held, fault_at=81)


class Speech(nn.Module):
    """Spectrum frames to characters, at a quarter of the frame rate."""

    def __init__(self, bands: int = 12, characters: int = 9) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(bands, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv1d(32, 32, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.rnn = nn.GRU(32, 32, batch_first=True)
        self.out = nn.Linear(32, characters)

    def forward(self, frames):
        h, _ = self.rnn(self.conv(frames.transpose(1, 2)).transpose(1, 2))
        return self.out(h).log_softmax(-1)


@situation(
    "ctc-long-target",
    row="data",
    cause="data",
    remedies={"filter-rows", "skip-step", "guard-operation"},
)
def ctc_long_target(seed: int, fixed: bool) -> Run:
    """Speech recognition with CTC: a fast speaker says more characters than there are frames left."""
    g = source(seed)
    model = Speech()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    voice = torch.randn(9, 12, generator=g)

    def utterances(step):
        frames = torch.randn(6, 48, 12, generator=g) * 0.3
        lengths = torch.full((6,), 12)
        targets, counts = torch.zeros(6, 12, dtype=torch.long), torch.zeros(6, dtype=torch.long)
        for i in range(6):
            spoken = torch.randint(1, 9, (4,), generator=g)
            for at, character in enumerate(spoken):
                frames[i, 12 * at : 12 * at + 8] += voice[character]
            targets[i, :4], counts[i] = spoken, 4
        if step == 64:
            targets[2, :9], counts[2], lengths[2] = torch.randint(1, 9, (9,), generator=g), 9, 5
        return frames, targets, lengths, counts

    def step_fn(model, batch):
        frames, targets, lengths, counts = batch
        output = model(frames).transpose(0, 1)
        return F.ctc_loss(output, targets, lengths, counts, zero_infinity=fixed)  # fault

    batches = [utterances(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=64)


class Detector(nn.Module):
    """One box for each cell of a 3 by 3 grid: objectness and four offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.objectness, self.box = nn.Conv2d(32, 1, 1), nn.Conv2d(32, 4, 1)

    def forward(self, image):
        h = self.body(image)
        return self.objectness(h).flatten(1), self.box(h).flatten(2).transpose(1, 2)


def scenes(count: int, g: torch.Generator, empty: bool = False):
    """Images of 12 by 12 with one bright box each, which cell of 4 by 4 it is in, and its centre,
    width and height in pixels."""
    image = torch.rand(count, 1, 12, 12, generator=g) * 0.2
    cell = torch.randint(0, 9, (count,), generator=g)
    size = torch.randint(2, 5, (count, 2), generator=g)
    centre = torch.stack((cell % 3 * 4 + 2, cell // 3 * 4 + 2), 1)
    if not empty:
        for i in range(count):
            (x, y), (w, h) = centre[i].tolist(), size[i].tolist()
            image[i, 0, y - h // 2 : y - h // 2 + h, x - w // 2 : x - w // 2 + w] += 1.0
    return image, cell, torch.cat((centre, size), 1).float()


@situation(
    "box-without-width",
    row="data",
    cause="data",
    also={"singular-operation"},
    remedies={"filter-rows", "skip-step", "guard-operation"},
)
def box_without_width(seed: int, fixed: bool) -> Run:
    """Detection with offsets to anchors: somebody clicked once, and the annotation has no width."""
    g = source(seed)
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    anchor = torch.tensor([3.0, 3.0])

    def step_fn(model, batch):
        image, cell, box = batch
        objectness, offsets = model(image)
        offsets = offsets[torch.arange(len(cell)), cell]
        shift = (box[:, :2] / 4) % 1.0 - 0.5
        target = torch.cat((shift, torch.log(box[:, 2:] / anchor)), 1)  # fault
        return F.cross_entropy(objectness, cell) + F.mse_loss(offsets, target)

    batches = [scenes(16, g) for _ in range(130)]
    batches[101][2][4, 2] = 0.0
    if fixed:
        batches = [[part[box[:, 2:].amin(1) > 0] for part in (x, c, box)] for x, c, box in batches]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=101)


# --- number type ---------------------------------------------------------------------------------


class GatedFeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.up = nn.Linear(width, hidden), nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x):
        h = self.norm(x)
        h = F.gelu(self.gate(h)) * self.up(h)  # fault
        return x + self.down(h)


@situation(
    "half-feed-forward",
    row="precision",
    cause="precision",
    remedies={"wider-type"},
    code=[GatedFeedForward],
)
def half_feed_forward(seed: int, fixed: bool) -> Run:
    """Fine-tuning under autocast to float16: a checkpoint trained in bfloat16 has one embedding
    direction that drives the gated product beyond the range of float16."""
    g = source(seed)
    vocabulary, width = 40, 32

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(vocabulary, width)
            self.blocks = nn.ModuleList(GatedFeedForward(width, 64) for _ in range(2))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 5)

        def forward(self, tokens):
            h = self.embed(tokens)
            for block in self.blocks:
                h = block(h)
            return self.head(self.norm(h))

    model = Tagger()
    with torch.no_grad():
        # As a large pretrained model has them: a rare token, and units that answer to it alone.
        model.embed.weight[7] = 0.0
        model.embed.weight[7, 3] = 40.0
        for part in (model.blocks[0].gate, model.blocks[0].up):
            part.weight[11] = 0.0
            part.weight[11, 3] = 60.0
        model.blocks[0].down.weight[:, 11] = 1e-4
        model.embed.weight[torch.arange(vocabulary) != 7, 3] = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    tag = torch.randint(0, 5, (vocabulary,), generator=g)

    def step_fn(model, tokens):
        with torch.autocast("cpu", torch.bfloat16 if fixed else torch.float16):
            logits = model(tokens)
        return F.cross_entropy(logits.float().flatten(0, 1), tag[tokens].flatten())

    batches = [torch.randint(8, vocabulary, (8, 16), generator=g) for _ in range(110)]
    for step in range(60, 110, 10):
        batches[step][step % 8, 5] = 7
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=60)


@situation(
    "half-pooling-sum",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
)
def half_pooling_sum(seed: int, fixed: bool) -> Run:
    """A sound classifier in float16: it averages over time by a masked sum, and a long recording
    comes whose sum has no place in float16."""
    g = source(seed)

    class Pooling(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Sequential(
                nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)
            )
            self.head = nn.Linear(32, 4)

        def forward(self, frames, mask):
            h = self.encode(frames).relu()
            wide = h.float() if fixed else h
            total = (wide * mask[..., None]).sum(1)  # fault
            pooled = (total / mask.sum(1, keepdim=True)).to(h.dtype)
            return self.head(pooled)

    model = Pooling().half()
    with torch.no_grad():
        model.encode[4].bias += 3.0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    voice = torch.randn(4, 8, generator=g)

    def recordings(step):
        label = torch.randint(0, 4, (16,), generator=g)
        length = 24000 if step in (75, 76) else 50
        frames = torch.randn(16 if length == 50 else 2, length, 8, generator=g)
        frames = frames * 0.5 + voice[label[: len(frames)], None]
        return frames.half(), torch.ones(frames.shape[:2]).half(), label[: len(frames)]

    def step_fn(model, batch):
        frames, mask, label = batch
        return F.cross_entropy(model(frames, mask.to(frames.dtype)).float(), label)

    batches = [recordings(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=75)


@situation(
    "loss-scale-grows", row="precision", cause="precision", remedies={"wider-type", "skip-step"}
)
def loss_scale_grows(seed: int, fixed: bool) -> Run:
    """A variational autoencoder in float16 with a loss scale made by hand: it doubles every ten steps
    and nobody looks for overflow, so that the backward pass leaves the range."""
    g = source(seed)

    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Sequential(nn.Linear(24, 48), nn.ReLU(), nn.Linear(48, 8))
            self.decode = nn.Sequential(nn.Linear(4, 48), nn.ReLU(), nn.Linear(48, 24))

        def forward(self, x):
            mean, log_variance = self.encode(x).chunk(2, -1)
            z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
            return self.decode(z), mean, log_variance

    model = Autoencoder().half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    mix = torch.randn(3, 24, generator=g)
    batches = [(torch.randn(32, 3, generator=g) @ mix).half() for _ in range(240)]

    def step_fn(model, x):
        drawn, mean, log_variance = model(x)
        mean, log_variance = mean.float(), log_variance.float()
        penalty = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()
        return F.mse_loss(drawn.float(), x.float()) + 0.05 * penalty

    state = {"step": 0}

    def update(x, backward):
        scale = 2.0 ** min(8 + state["step"] // 10, 10 if fixed else 60)
        state["step"] += 1
        optimizer.zero_grad()
        backward(step_fn(model, x), x, scale)
        for parameter in model.parameters():
            parameter.grad.div_(scale)
        optimizer.step()

    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update, fault_at=40)


class HalfAttention(nn.Module):
    def __init__(self, width: int, is_wide: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.is_wide = is_wide

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        if self.is_wide:
            q, k = q.float(), k.float()
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # fault
        return x + self.out(scores.softmax(-1).to(v.dtype) @ v)


@situation(
    "half-attention-scores",
    row="precision",
    cause="precision",
    remedies={"wider-type", "guard-operation"},
    code=[HalfAttention],
)
def half_attention_scores(seed: int, fixed: bool) -> Run:
    """A transformer over sensor series in float16: the scores are divided by the root of the width
    after the product, and one sensor is louder than the others."""
    g = source(seed)

    class Forecast(nn.Module):
        def __init__(self):
            super().__init__()
            self.read = nn.Linear(6, 64)
            self.first, self.second = HalfAttention(64, fixed), HalfAttention(64, fixed)
            self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 6)

        def forward(self, x):
            return self.head(self.norm(self.second(self.first(self.read(x)))))

    model = Forecast().half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    phase = torch.rand(6, generator=g) * 6

    def series(step):
        start = torch.rand(8, 1, 1, generator=g) * 6
        time = torch.arange(25)[None, :, None] * 0.3
        x = torch.sin(time + start + phase) + 0.05 * torch.randn(8, 25, 6, generator=g)
        loud = x.clone()
        if step >= 66 and step % 6 == 0:
            loud[3] *= 420.0
        return loud[:, :-1].half(), x[:, 1:].half()

    def step_fn(model, batch):
        x, y = batch
        return F.mse_loss(model(x).float(), y.float())

    batches = [series(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=66)


# --- singular functions --------------------------------------------------------------------------


def triplet(anchor, positive, negative, margin=1.0, eps=0.0):
    near = ((anchor - positive).pow(2).sum(1) + eps).sqrt()  # fault
    far = ((anchor - negative).pow(2).sum(1) + eps).sqrt()
    return F.relu(near - far + margin).mean()


@situation(
    "triplet-same-image",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation"},
    code=[triplet],
)
def triplet_same_image(seed: int, fixed: bool) -> Run:
    """A triplet network: a class with one image gives that image as anchor and as positive, and the
    distance is the root of zero."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    centre = torch.randn(12, 20, generator=g)

    def triplets(step):
        kind = torch.randint(0, 11, (24,), generator=g)
        other = (kind + torch.randint(1, 11, (24,), generator=g)) % 11
        a, p, n = (centre[k] + 0.7 * torch.randn(24, 20, generator=g) for k in (kind, kind, other))
        if step >= 58 and step % 9 == 4:
            a[5] = p[5] = centre[11]
        return a, p, n

    def step_fn(model, batch):
        return triplet(*map(model, batch), eps=1e-12 if fixed else 0.0)

    batches = [triplets(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=58)


@situation(
    "log-of-probability",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation"},
)
def log_of_probability(seed: int, fixed: bool) -> Run:
    """A classifier of word counts with smoothed labels: the loss takes the logarithm of softmax
    probabilities, and those of long documents underflow to 0."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6)
    )
    topic = torch.randn(16, 6, generator=g)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

    def documents():
        x = torch.randn(48, 16, generator=g)
        label = F.one_hot((x @ topic).argmax(1), 6) * 0.94 + 0.01
        return x * (1.1 * torch.randn(48, 1, generator=g)).exp(), label

    def step_fn(model, batch):
        x, label = batch
        logits = model(x)
        if fixed:
            return -(label * logits.log_softmax(-1)).sum(-1).mean()
        probability = logits.softmax(-1)
        return -(label * torch.log(probability)).sum(-1).mean()  # fault

    batches = [documents() for _ in range(200)]

    def score(model):
        x, label = batches[0]
        return -(label * model(x).log_softmax(-1)).sum(-1).mean()

    return Run(model, optimizer, batches, step_fn, score=score)


@situation(
    "deviation-of-silence",
    row="singular",
    cause="singular-operation",
    remedies={"guard-operation"},
)
def deviation_of_silence(seed: int, fixed: bool) -> Run:
    """Speaker recognition pools mean and deviation over time: in digital silence every frame is the
    same, and the root of the variance has no gradient."""
    g = source(seed)

    class Speaker(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Sequential(
                nn.Conv1d(10, 32, 3), nn.ReLU(), nn.Conv1d(32, 32, 3), nn.ReLU()
            )
            self.head = nn.Linear(64, 5)

        def forward(self, x):
            h = self.conv(x)
            variance = h.var(2, unbiased=False)
            if fixed:
                variance = variance.clamp(min=1e-8)
            deviation = variance.sqrt()  # fault
            return self.head(torch.cat((h.mean(2), deviation), 1))

    model = Speaker()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    voice = torch.rand(5, 10, 1, generator=g) + 0.2

    def spoken(step):
        label = torch.randint(0, 5, (16,), generator=g)
        x = torch.randn(16, 10, 36, generator=g) * voice[label]
        if step >= 72 and step % 11 == 6:
            x[9] = 0.0
        return x, label

    def step_fn(model, batch):
        x, label = batch
        return F.cross_entropy(model(x), label)

    batches = [spoken(step) for step in range(130)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=72)


@situation(
    "angle-of-equal", row="singular", cause="singular-operation", remedies={"guard-operation"}
)
def angle_of_equal(seed: int, fixed: bool) -> Run:
    """Pose estimation with the angle between directions as loss: once a prediction is right, the
    cosine is 1, where the arc cosine has no derivative (or a rounding error above, where it is NaN)."""
    g = source(seed)
    model = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def step_fn(model, x):
        guess, truth = F.normalize(model(x), dim=1), F.normalize(x, dim=1)
        cosine = (guess * truth).sum(1)
        if fixed:
            cosine = cosine.clamp(-1 + 1e-6, 1 - 1e-6)
        return torch.acos(cosine).mean()  # fault

    batches = [torch.randn(128, 3, generator=g) for _ in range(240)]

    def score(model):
        held = batches[0]
        return torch.acos(F.cosine_similarity(model(held), held).clamp(-1 + 1e-6, 1 - 1e-6)).mean()

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=2)


# --- empty sets ----------------------------------------------------------------------------------


@situation("all-labels-ignored", row="empty-set", cause="empty-set", remedies={"drop-empty-batch"})
def all_labels_ignored(seed: int, fixed: bool) -> Run:
    """Fine-tuning a language model on answers only: a prompt fills the whole window, so that no label
    is left in its batch."""
    g = source(seed)

    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(30, 32)
            self.rnn, self.head = nn.GRU(32, 48, batch_first=True), nn.Linear(48, 30)

        def forward(self, tokens):
            return self.head(self.rnn(self.embed(tokens))[0])

    model = Language()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    follows = torch.randperm(30, generator=g)

    def dialogues(step):
        tokens = [torch.randint(0, 30, (4,), generator=g)]
        for _ in range(11):
            tokens.append(follows[tokens[-1]])
        tokens = torch.stack(tokens, 1)
        labels = tokens.clone()
        labels[:, :5] = -100
        if step >= 63 and step % 8 == 0:
            labels[:] = -100
        return tokens, labels

    def step_fn(model, batch):
        tokens, labels = batch
        logits = model(tokens)[:, :-1].flatten(0, 1)
        return F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=-100)  # fault

    batches = [dialogues(step) for step in range(130)]
    held = batches[:6]
    if fixed:
        batches = [(x, y) for x, y in batches if (y >= 0).any()]
    return Run(model, optimizer, batches, step_fn, held=held, fault_at=63)


@situation(
    "no-positives",
    row="empty-set",
    cause="empty-set",
    remedies={"drop-empty-batch", "guard-operation"},
)
def no_positives(seed: int, fixed: bool) -> Run:
    """Detection: the box loss is divided by the number of objects, and a batch has none."""
    g = source(seed)
    model = Detector()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def step_fn(model, batch):
        image, has_object, box = batch
        objectness, offsets = model(image)
        error = F.smooth_l1_loss(offsets, box, reduction="none").sum(-1)
        count = has_object.sum()
        if fixed:
            count = count.clamp(min=1.0)
        box_loss = (error * has_object).sum() / count  # fault
        return F.binary_cross_entropy_with_logits(objectness, has_object) + box_loss

    def draw(step):
        empty = step >= 87 and step % 10 == 7
        image, cell, box = scenes(8, g, empty)
        has_object = torch.zeros(8, 9)
        if not empty:
            has_object[torch.arange(8), cell] = 1.0
        return image, has_object, (box / 12)[:, None].expand(8, 9, 4)

    batches = [draw(step) for step in range(140)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=87)


@situation(
    "advantage-of-one",
    row="empty-set",
    cause="empty-set",
    also={"singular-operation"},
    remedies={"larger-batch", "drop-empty-batch", "guard-operation"},
)
def advantage_of_one(seed: int, fixed: bool) -> Run:
    """PPO: the last minibatch of an epoch has one sample, whose advantage has no deviation."""
    g = source(seed)
    model = ActorCritic(6, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step_fn(model, batch):
        seen, taken, old, returns, advantage = batch
        logits, value = model(seen)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)  # fault
        chosen = logits.log_softmax(-1).gather(1, taken[:, None]).squeeze(1)
        ratio = (chosen - old).exp()
        clipped = ratio.clamp(0.8, 1.2)
        policy_loss = -torch.min(ratio * advantage, clipped * advantage).mean()
        return policy_loss + 0.5 * F.mse_loss(value, returns)

    def epoch(size):
        seen = torch.randn(size, 6, generator=g)
        taken = torch.randint(0, 4, (size,), generator=g)
        reward = (taken == seen[:, :4].argmax(1)).float() + 0.3 * seen[:, 4]
        advantage = reward - 0.25
        rollout = seen, taken, torch.full((size,), -math.log(4.0)), reward * 2, advantage
        minibatches = list(zip(*(part.split(32) for part in rollout), strict=True))
        return minibatches[:-1] if fixed and size % 32 == 1 else minibatches

    # An episode ends early in the fifth epoch.
    batches = [m for i in range(8) for m in epoch(512 - 31 if i == 4 else 512)]

    def score(model):
        seen, returns = batches[0][0], batches[0][3]
        return F.mse_loss(model(seen)[1], returns)

    return Run(model, optimizer, batches, step_fn, score=score, fault_at=79)


# --- masks ---------------------------------------------------------------------------------------


class MaskedAttention(nn.Module):
    def __init__(self, width: int, heads: int = 2) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x, hidden):
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = scores.softmax(-1)  # fault
        return self.out((weights @ v).transpose(1, 2).reshape(b, t, w))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.first = MaskedAttention(width), nn.LayerNorm(width)
        self.second = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x, hidden):
        x = x + self.attention(self.first(x), hidden)
        return x + self.mlp(self.second(x))


class Transformer(nn.Module):
    def __init__(self, tokens: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.1 * torch.randn(1, 16, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, outputs)

    def forward(self, tokens, hidden):
        h = self.embed(tokens) + self.position[:, : tokens.shape[1]]
        for block in self.blocks:
            h = block(h, hidden)
        return self.norm(h)


@situation(
    "empty-review",
    row="mask",
    cause="masked-row",
    remedies={"unmask-row", "filter-rows"},
    code=[MaskedAttention],
)
def empty_review(seed: int, fixed: bool) -> Run:
    """Sentiment with an encoder: a review is empty after cleaning, all of its keys are padding, and
    its softmax is over nothing."""
    g = source(seed)
    model = Transformer(25, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)

    def reviews(step):
        tokens = torch.randint(1, 25, (12, 10), generator=g)
        length = torch.randint(3, 11, (12,), generator=g)
        if step >= 77 and step % 12 == 5:
            length[8] = 0
        tokens[torch.arange(10)[None] >= length[:, None]] = 0
        label = ((tokens < 9) & (tokens > 0)).sum(1) > (tokens >= 9).sum(1) / 2
        return tokens, label.long()

    def step_fn(model, batch):
        tokens, label = batch
        padding = tokens == 0
        if fixed:
            padding[:, 0] = False
        h = model(tokens, padding[:, None, None])
        seen = (~padding).float()[..., None]
        pooled = (h * seen).sum(1) / seen.sum(1).clamp(min=1)
        return F.cross_entropy(model.head(pooled), label)

    batches = [reviews(step) for step in range(110)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=77)


@situation(
    "left-padding",
    row="mask",
    cause="masked-row",
    remedies={"unmask-row"},
    code=[MaskedAttention],
)
def left_padding(seed: int, fixed: bool) -> Run:
    """A decoder on prompts of unequal length, padded on the left: with the causal mask the first
    positions see nothing at all. Their own loss is masked, but the next block multiplies them by 0."""
    g = source(seed)
    model = Transformer(25, 25)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    follows = torch.randperm(24, generator=g) + 1
    follows = torch.cat((torch.zeros(1, dtype=torch.long), follows))

    def prompts(step):
        tokens = [torch.randint(1, 25, (8,), generator=g)]
        for _ in range(11):
            tokens.append(follows[tokens[-1]])
        tokens = torch.stack(tokens, 1)
        if step >= 50:
            start = torch.randint(0, 5, (8,), generator=g)
            start[0] = 3
            tokens[torch.arange(12)[None] < start[:, None]] = 0
        return tokens

    def step_fn(model, tokens):
        padding = (tokens == 0)[:, None, None]
        hidden = torch.ones(12, 12, dtype=torch.bool).triu(1)[None, None] | padding
        if fixed:
            hidden = hidden & ~torch.eye(12, dtype=torch.bool)
        logits = model.head(model(tokens, hidden))[:, :-1]
        loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        real = (tokens[:, :-1] > 0).flatten()
        return loss[real].mean()

    batches = [prompts(step) for step in range(100)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=50)


@situation(
    "depth-where",
    row="mask",
    cause="masked-row",
    also={"singular-operation"},
    remedies={"guard-operation"},
)
def depth_where(seed: int, fixed: bool) -> Run:
    """Depth estimation with a logarithmic error: `where` leaves out pixels without a measurement, but
    not from the backward pass, where 0 meets the infinite derivative of log(0)."""
    g = source(seed)

    class Depth(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(2, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1)
            )

        def forward(self, image):
            # Padding is cut away after the network: nothing is predicted there.
            return F.relu(self.net(image[:, :2]) + 2.0) * image[:, 2:]

    model = Depth()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

    def step_fn(model, batch):
        image, depth = batch
        guess, valid = model(image), depth > 0
        if fixed:
            guess = torch.where(valid, guess, torch.ones_like(guess)).clamp(min=1e-3)
        error = torch.where(valid, torch.log(guess) - torch.log(depth), 0.0)  # fault
        return error.abs().sum() / valid.sum()

    def draw(step):
        image = torch.rand(4, 2, 10, 10, generator=g)
        depth = 1.0 + 2 * image[:, :1] + image[:, 1:]
        inside = torch.ones(4, 1, 10, 10)
        if step >= 69 and step % 7 == 6:
            inside[2, :, 8:] = 0.0
            depth[2, :, 8:] = 0.0
        return torch.cat((image, inside), 1), depth

    batches = [draw(step) for step in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6], fault_at=69)


# --- optimizer -----------------------------------------------------------------------------------


@situation(
    "adam-eps-in-half",
    row="optimizer",
    cause="optimizer-division",
    remedies={"optimizer-eps", "wider-type"},
)
def adam_eps_in_half(seed: int, fixed: bool) -> Run:
    """A text classifier in pure float16 with Adam: 1e-8 is 0 in float16, and words that do not occur
    in the batch divide 0 by 0."""
    g = source(seed)

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(300, 24)
            self.net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 3))

        def forward(self, tokens):
            return self.net(self.embed(tokens).mean(1))

    model = Words().half()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, eps=1e-4 if fixed else 1e-8)
    kind = torch.randint(0, 3, (300,), generator=g)

    def step_fn(model, tokens):
        label = F.one_hot(kind[tokens], 3).sum(1).argmax(1)
        return F.cross_entropy(model(tokens).float(), label)

    batches = [torch.randint(0, 300, (32, 8), generator=g) for _ in range(200)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "eps-below-squares",
    row="optimizer",
    cause="optimizer-division",
    remedies={"optimizer-eps", "scale-target", "wider-type"},
)
def eps_below_squares(seed: int, fixed: bool) -> Run:
    """Forces between molecules in SI units: the gradients are so small that their squares underflow
    in Adam's second moment, and the author had made eps small enough not to drown them."""
    g = source(seed)
    unit = 1.0 if fixed else 2e-22
    model = nn.Sequential(
        nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, eps=1e-8 if fixed else 1e-30)

    def energy(x):
        return x[:, :1] * x[:, 1:2] + x[:, 2:].sin()

    def step_fn(model, x):
        return ((model(x) - energy(x)).abs() * unit).mean()

    batches = [torch.randn(64, 3, generator=g) for _ in range(160)]

    def score(model):
        return F.l1_loss(model(batches[0]), energy(batches[0]))

    return Run(model, optimizer, batches, step_fn, score=score)


# --- learning rate -------------------------------------------------------------------------------


@situation(
    "rate-of-large-batch",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate"},
)
def rate_of_large_batch(seed: int, fixed: bool) -> Run:
    """The recipe's rate is for a batch of 1,024 on eight devices; here one device has a batch of 8."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv1d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 32, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv1d(32, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3),
    )  # fmt: skip
    rate = 1.6 * (8 / 1024 if fixed else 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, 1.0, total_iters=80)

    def waves(count):
        label = torch.randint(0, 3, (count,), generator=g)
        time = torch.arange(32)[None] * (0.3 + 0.25 * label[:, None])
        x = torch.sin(time + 6 * torch.rand(count, 1, generator=g))
        return (x + 0.3 * torch.randn(count, 32, generator=g))[:, None], label

    def step_fn(model, batch):
        x, label = batch
        return F.cross_entropy(model(x), label)

    batches = [waves(8) for _ in range(160)]
    held = [waves(64)]
    return Run(model, optimizer, batches, step_fn, held=held, scheduler=warm_up)


@situation(
    "endless-warm-up",
    row="learning-rate",
    cause="learning-rate",
    remedies={"lower-learning-rate"},
)
def endless_warm_up(seed: int, fixed: bool) -> Run:
    """A warm-up written by hand forgets to stop at 1, so that the rate goes on to rise."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(),
        nn.Linear(96, 2),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    def factor(step):
        risen = (step + 1) / 25
        return min(1.0, risen) if fixed else risen

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    true = torch.randn(16, 2, generator=g) / 4

    def step_fn(model, x):
        return F.mse_loss(model(x), (x @ true).sin() * 2)

    batches = [torch.randn(32, 16, generator=g) for _ in range(500)]
    return Run(
        model, optimizer, batches, step_fn, held=batches[:6], fault_at=25, scheduler=scheduler
    )


# --- accumulation --------------------------------------------------------------------------------


class CharacterRnn(nn.Module):
    def __init__(self, tokens: int = 20) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, 24)
        self.rnn, self.head = nn.RNN(24, 48, batch_first=True), nn.Linear(48, tokens)

    def forward(self, tokens):
        return self.head(self.rnn(self.embed(tokens))[0])


def sentences(count: int, follows: torch.Tensor, g: torch.Generator, length: int = 12):
    tokens = [torch.randint(0, len(follows), (count,), generator=g)]
    for _ in range(length - 1):
        noise = torch.randint(0, len(follows), (count,), generator=g)
        is_noise = torch.rand(count, generator=g) < 0.1
        tokens.append(torch.where(is_noise, noise, follows[tokens[-1]]))
    return torch.stack(tokens, 1)


@situation(
    "missing-zero-grad",
    row="accumulation",
    cause="accumulation",
    remedies={"normalise-accumulation"},
)
def missing_zero_grad(seed: int, fixed: bool) -> Run:
    """A character model whose loop never clears the gradients: they add up over the whole run."""
    g = source(seed)
    model = CharacterRnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    follows = torch.randperm(20, generator=g)
    batches = [sentences(16, follows, g) for _ in range(150)]

    def step_fn(model, tokens):
        return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    def update(tokens, backward):
        if fixed:
            optimizer.zero_grad()
        backward(step_fn(model, tokens), tokens)
        optimizer.step()

    return Run(model, optimizer, batches, step_fn, held=batches[:6], update=update)


@situation(
    "summed-micro-batches",
    row="accumulation",
    cause="accumulation",
    remedies={"normalise-accumulation"},
)
def summed_micro_batches(seed: int, fixed: bool) -> Run:
    """From the second phase on, 24 micro-batches make one step, and their losses are added up, not
    averaged."""
    g = source(seed)
    model = CharacterRnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9)
    follows = torch.randperm(20, generator=g)
    sizes = [1] * 60 + [24] * 16
    batches = [[sentences(6, follows, g) for _ in range(size)] for size in sizes]

    def loss_of(model, tokens):
        return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    def update(parts, backward):
        optimizer.zero_grad()
        for tokens in parts:
            backward(loss_of(model, tokens), tokens, 1 / len(parts) if fixed else 1.0)
        optimizer.step()

    held = [part for parts in batches[:6] for part in parts]
    return Run(model, optimizer, batches, loss_of, held=held, update=update, fault_at=60)


# --- labels, targets, initialisation, normalisation ----------------------------------------------


@situation("mask-of-255", row="labels", cause="labels", remedies={"fix-labels", "scale-target"})
def mask_of_255(seed: int, fixed: bool) -> Run:
    """Segmentation with binary cross-entropy: the masks were read from PNG files as 0 and 255, so
    that the loss has no lower bound."""
    g = source(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 1, 1),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)

    def step_fn(model, batch):
        image, mask = batch
        target = mask.float() / 255 if fixed else mask.float()
        return F.binary_cross_entropy_with_logits(model(image), target)

    def draw():
        image, _, _ = scenes(8, g)
        mask = (image > 0.6).to(torch.uint8) * 255
        return image + 0.2 * torch.randn(image.shape, generator=g), mask

    batches = [draw() for _ in range(120)]

    def score(model):
        image, mask = batches[0]
        return F.binary_cross_entropy_with_logits(model(image), mask.float() / 255)

    return Run(model, optimizer, batches, step_fn, score=score)


@situation("house-prices", row="unscaled", cause="unscaled-target", remedies={"scale-target"})
def house_prices(seed: int, fixed: bool) -> Run:
    """Regression on prices in dollars."""
    g = source(seed)
    model = nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    worth = torch.randn(8, generator=g) * 4e4
    mean, deviation = 2.5e5, 1e5

    def houses(count=32):
        x = torch.randn(count, 8, generator=g)
        return x, mean + x @ worth + 2e4 * torch.randn(count, generator=g)

    def step_fn(model, batch):
        x, price = batch
        target = (price - mean) / deviation if fixed else price
        return F.mse_loss(model(x).squeeze(1), target)

    batches = [houses() for _ in range(120)]

    def score(model):
        x, price = batches[0]
        guess = model(x).squeeze(1)
        return F.mse_loss(
            guess if fixed else (guess - mean) / deviation, (price - mean) / deviation
        )

    return Run(model, optimizer, batches, step_fn, score=score)


@situation(
    "normal-weights",
    row="initialisation",
    cause="initialisation",
    remedies={"reinitialise", "batch-norm"},
)
def normal_weights(seed: int, fixed: bool) -> Run:
    """A deep perceptron whose weights were drawn with a deviation of 1 whatever the width."""
    g = source(seed)

    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            widths = [20] + [96] * 7 + [4]
            self.weights = nn.ParameterList()
            self.biases = nn.ParameterList()
            for before, after in zip(widths, widths[1:], strict=False):
                deviation = math.sqrt(2 / before) if fixed else 1.0
                self.weights.append(nn.Parameter(torch.randn(before, after) * deviation))
                self.biases.append(nn.Parameter(torch.zeros(after)))

        def forward(self, x):
            for weight, bias in zip(self.weights, self.biases, strict=True):
                x = x @ weight + bias
                if weight is not self.weights[-1]:
                    x = x.relu()
            return x

    model = Deep()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    true = torch.randn(20, 4, generator=g)

    def step_fn(model, x):
        return F.cross_entropy(model(x), (x @ true).argmax(1))

    batches = [torch.randn(32, 20, generator=g) for _ in range(150)]
    return Run(model, optimizer, batches, step_fn, held=batches[:6])


@situation(
    "summed-neighbours",
    row="normalisation",
    cause="normalisation",
    also={"initialisation"},
    remedies={"batch-norm", "fewer-layers", "scale-input"},
)
def summed_neighbours(seed: int, fixed: bool) -> Run:
    """A graph network adds up the neighbours of each node and normalises nothing: with dozens of
    neighbours, each layer multiplies the values."""
    g = source(seed)

    class Convolution(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.own, self.other = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

        def forward(self, h, adjacency):
            around = adjacency @ h
            if fixed:
                around = around / adjacency.sum(-1, keepdim=True).clamp(min=1)
            return self.own(h) + self.other(around)

    class Graph(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Convolution(16 if i == 0 else 48, 48) for i in range(5))
            self.head = nn.Linear(48, 3)

        def forward(self, h, adjacency):
            for layer in self.layers:
                h = layer(h, adjacency).relu()
            return self.head(h)

    model = Graph()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def graphs():
        label = torch.randint(0, 3, (80,), generator=g)
        alike = label[:, None] == label[None]
        edges = torch.rand(80, 80, generator=g) < torch.where(alike, 0.8, 0.25)
        adjacency = (edges | edges.T).float()
        h = torch.randn(80, 16, generator=g)
        h[torch.arange(80), label] += 1.5
        return h, adjacency, label

    def step_fn(model, batch):
        h, adjacency, label = batch
        return F.cross_entropy(model(h, adjacency), label)

    batches = [graphs() for _ in range(120)]
    return Run(model, optimizer, batches, step_fn, held=batches[:4])
