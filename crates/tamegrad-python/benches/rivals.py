"""Other tools that watch a training loop, each put round its step as its own documentation says.

A rival is a function of a model and an optimizer that gives a step: a function that takes one training
step, given a function that makes the loss. A tool that is not installed raises ``ImportError``.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import torch
from torch import nn

Step = Callable[[Callable[[], torch.Tensor]], None]


def backward(optimizer: torch.optim.Optimizer, loss_of) -> torch.Tensor:
    optimizer.zero_grad()
    loss = loss_of()
    loss.backward()
    return loss


def clip_grad_norm(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    parameters = list(model.parameters())

    def step(loss_of) -> None:
        backward(optimizer, loss_of)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


def detect_anomaly(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """What Lightning's ``Trainer(detect_anomaly=True)`` turns on as well."""

    def step(loss_of) -> None:
        with torch.autograd.set_detect_anomaly(True):
            backward(optimizer, loss_of)
        optimizer.step()

    return step


def wandb_watch(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Histograms of the gradients at every step; its default is every 1000th."""
    import wandb

    folder = tempfile.mkdtemp(prefix="bench-wandb-")
    os.environ["WANDB_SILENT"] = "true"
    run = wandb.init(mode="offline", dir=folder, project="bench")
    run.watch(model, log="gradients", log_freq=1)

    def step(loss_of) -> None:
        loss = backward(optimizer, loss_of)
        optimizer.step()
        run.log({"loss": loss.item()})

    return step


def zclip(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    from zclip import ZClip

    clip = ZClip()

    def step(loss_of) -> None:
        backward(optimizer, loss_of)
        clip.step(model)
        optimizer.step()

    return step


def trainscope(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    from trainscope import TrainScope
    from trainscope.core.config import TrainScopeConfig

    folder = tempfile.mkdtemp(prefix="bench-trainscope-")
    scope = TrainScope(model, optimizer, config=TrainScopeConfig(run_dir=folder)).attach()
    count = iter(range(1 << 40))

    def step(loss_of) -> None:
        loss = backward(optimizer, loss_of)
        scope.step(loss.item(), batch_index=next(count))
        optimizer.step()

    return step


def stabilityguard(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    from stabilityguard import GuardedOptimizer

    folder = tempfile.mkdtemp(prefix="bench-stabilityguard-")
    guarded = GuardedOptimizer(optimizer, model, log_dir=folder, verbose=False)

    def step(loss_of) -> None:
        backward(guarded, loss_of)
        guarded.step()

    return step


def trainpulse(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """It takes the norm that the user has computed."""
    from trainpulse import Monitor

    monitor = Monitor()
    parameters = list(model.parameters())
    count = iter(range(1 << 40))

    def step(loss_of) -> None:
        number = next(count)
        monitor.step_start()
        loss = backward(optimizer, loss_of)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer.step()
        monitor.log("loss", number, loss.item())
        monitor.log("grad_norm", number, norm.item())
        monitor.step_end(number)

    return step


def lightning_grad_norm(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    from lightning.pytorch.utilities import grad_norm

    def step(loss_of) -> None:
        backward(optimizer, loss_of)
        grad_norm(model, norm_type=2)
        optimizer.step()

    return step


def transformers_debug(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """``--debug underflow_overflow`` of its trainer."""
    from transformers.debug_utils import DebugUnderflowOverflow

    watching = DebugUnderflowOverflow(model)

    def step(loss_of) -> None:
        assert watching.model is model
        backward(optimizer, loss_of)
        optimizer.step()

    return step


RIVALS: dict[str, Callable[[nn.Module, torch.optim.Optimizer], Step]] = {
    "torch clip_grad_norm_": clip_grad_norm,
    "torch detect_anomaly": detect_anomaly,
    "zclip": zclip,
    # Before wandb's run begins: it would log into it.
    "trainscope": trainscope,
    "wandb.watch": wandb_watch,
    "stabilityguard": stabilityguard,
    "trainpulse": trainpulse,
    "Lightning grad_norm": lightning_grad_norm,
    "Transformers DebugUnderflowOverflow": transformers_debug,
}
