"""What a broken pass leaves in a model is taken back with its step."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import acted, learn, watched
from torch import nn
from torch.nn import functional as F

from tamegrad._buffers import CalmBuffers


class Held(nn.Module):
    """Keeps a running mean in one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.first, self.norm, self.out = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)
        self.register_buffer("mean", torch.zeros(1 if way == "resized" else 8))
        self.plain = torch.zeros(8)

    def forward(self, x):
        h = self.norm(self.first(x))
        now = h.detach().mean(0)
        if self.way == "written":
            self.mean.mul_(0.9).add_(now, alpha=0.1)
        elif self.way == "assigned":
            self.mean = 0.9 * self.mean + 0.1 * now
        elif self.way == "attribute":
            self.plain = 0.9 * self.plain + 0.1 * now
        elif self.way == "resized":
            self.mean.resize_(8).copy_(now)
        return self.out(torch.relu(h - self.mean - self.plain))


def train(way: str, change=None, at: int = 0):
    torch.manual_seed(0)
    model = Held(way)
    optimizer, guard = watched(model, "protect", torch.optim.Adam, 1e-3)
    for step in range(60):
        x = torch.randn(16, 4)
        if step == at and change is not None:
            change(model, optimizer)
        x = x.to(model.first.weight.dtype) * (math.inf if step == 40 else 1.0)
        learn(F.cross_entropy(model(x), torch.arange(16) % 2), optimizer, guard)
    assert acted(guard) == [(40, "skip")]
    held = [*model.state_dict().values(), model.plain]
    return all(bool(torch.isfinite(tensor).all()) for tensor in held if tensor.is_floating_point())


def test_a_data_set_that_a_module_holds_is_not_copied():
    model = nn.Linear(2, 2)
    model.small, model.images = torch.zeros(8), torch.zeros(1 << 24 | 1)
    model.register_buffer("large", torch.zeros(1 << 24 | 1))
    kept = {name for _, name in CalmBuffers(model)._kept}
    assert kept == {"small", "large"}


@pytest.mark.parametrize("way", ["written", "assigned", "attribute", "resized"])
def test_a_running_mean_is_what_it_was_before_the_step_that_was_left_out(way):
    assert train(way)


def exchange(model, optimizer):
    """Puts another normalisation in the place of the one that was there."""
    model.norm = nn.BatchNorm1d(8)
    optimizer.add_param_group({"params": list(model.norm.parameters())})
    return model


@pytest.mark.parametrize(
    "change", [lambda model, _: model.double(), exchange], ids=["type", "layer"]
)
def test_buffers_that_came_after_the_guard_are_taken_back_as_well(change):
    assert train("written", change)
