"""Runs the step of an incident again on copies of the model and its optimizers."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from . import _gradients
from ._calls import leads_to, tensors_of
from ._conditions import Autocast, conditions
from ._experiments import Change, Experiment, Facts
from ._incident import Incident
from ._names import unwrapped
from ._nest import mapped
from ._safetensors import bytes_of, size_of
from ._taps import compiled_call

_NODES_MAX = 100_000
"""Nodes of a graph that are looked at for an attention."""
_DROPOUT = nn.modules.dropout._DropoutNd
_DDP = nn.parallel.DistributedDataParallel

StepFn = Callable[[nn.Module, Any], torch.Tensor]


class Bench:
    """Reruns the step of an incident, as often as wanted."""

    def __init__(
        self,
        incident: Incident,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        step_fn: StepFn,
        *,
        restores: bool,
    ) -> None:
        """``restores`` has the parameters taken from the incident and not from the model."""
        self._incident = incident
        has_ddp = any(isinstance(module, _DDP) for module in model.modules())
        # A copy of DDP would wait for ranks that do nothing.
        model = unwrapped(model) if has_ddp else model
        # A copy has lost its compiled calls.
        self._compiled = [compiled_call(module) is not None for module in model.modules()]
        self._model, self._optimizers = _copied(model, optimizers)
        if restores:
            incident.restore(self._model, self._optimizers or None)
        incident.restore_modes(self._model)
        self._step_fn = step_fn
        self._scale = float(incident.about.get("scaler") or 1.0)
        self.facts = self._facts()

    def need(self, change: Change) -> int:
        """Bytes of the copy of the model and its gradients, and of the optimizers' state."""
        size = 0
        for tensor in [*self._model.parameters(), *self._model.buffers()]:
            is_changed = change.dtype is not None and tensor.is_floating_point()
            size += tensor.numel() * (change.dtype if is_changed else tensor.dtype).itemsize
        state = [s.values() for optimizer in self._optimizers for s in optimizer.state.values()]
        held = [value for values in state for value in values if isinstance(value, torch.Tensor)]
        return 2 * size + (sum(map(size_of, held)) if change.updates else 0)

    def run(
        self, change: Change, batch: Callable[[Any], Any] | None = None, *, is_first: bool = False
    ) -> Experiment:
        """Takes the step; ``batch`` gives what is left of the batch. What it raises is noted, but for
        the first one, whose errors are the user's."""
        done, began = Experiment(change.name), time.perf_counter()
        try:
            self._run(done, change, batch, is_first)
        except Exception as error:
            if is_first:
                raise
            done.error = (
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            )
        done.seconds = time.perf_counter() - began
        return done

    def _run(
        self, done: Experiment, change: Change, batch: Callable | None, is_first: bool
    ) -> None:
        model, optimizers = self._copies(change)
        given = self._incident.batch_for(model)
        given = given if batch is None else batch(given)
        given = mapped(given, lambda tensor: _changed(tensor, change))
        autocast = Autocast(is_off=not change.autocast)
        with conditions(change), autocast, torch.enable_grad():
            self._incident.restore_random()
            loss = _checked(self._step_fn(model, given), model)
            if is_first:
                self.facts.uses_autocast |= autocast.is_seen
                self.facts.uses_attention |= _has_attention(loss)
                self.facts.dtypes |= {t.dtype for t in tensors_of(given)}
            (loss * self._scale if self._scale != 1.0 else loss).backward()
        _measure(done, model, loss.detach(), self._scale)
        if change.updates:
            _update(done, model, optimizers, change)

    def _copies(self, change: Change) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
        model, copies = _copied(self._model, self._optimizers if change.updates else [])
        for module, is_compiled in zip(model.modules(), self._compiled, strict=True):
            if is_compiled and change.compiles:
                module.compile()
        _alter(model, copies, change)
        return model, copies

    def _facts(self) -> Facts:
        tensors = [*self._model.parameters(), *self._model.buffers()]
        dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        held = [
            value
            for optimizer in self._optimizers
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        ]
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        eps = [float(g["eps"]) for g in groups if isinstance(g.get("eps"), (float, torch.Tensor))]
        kinds = {type(module).__name__ for module in self._model.modules()}
        is_compiled = any(self._compiled) or "OptimizedModule" in kinds
        is_compiled |= hasattr(self._step_fn, "_torchdynamo_orig_callable")
        has_attention = any("Attention" in kind for kind in kinds)
        return Facts(
            dtypes,
            {tensor.device.type for tensor in tensors} or {"cpu"},
            uses_autocast=bool(self._incident.about["autocast"]),
            uses_attention=is_compiled and has_attention,
            is_compiled=is_compiled,
            has_dropout=any(_drops(module) for module in self._model.modules()),
            eps=min(eps, default=None),
            state_dtypes=dtypes | {value.dtype for value in held},
            has_optimizer=bool(self._optimizers),
        )


def _copied(
    model: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> tuple[nn.Module, list[torch.optim.Optimizer]]:
    """Copies of both, which belong together."""
    try:
        model, optimizers = copy.deepcopy((model, optimizers), _memo(model))
    except Exception as error:
        raise ValueError(
            f"model: got one that cannot be copied ({type(error).__name__}: {error}), want one that "
            "copy.deepcopy takes: every experiment is run on a copy"
        ) from error
    model.zero_grad(set_to_none=True)
    return model, optimizers


def _memo(model: nn.Module) -> dict[int, Any]:
    """Tensors with a graph, which a model may hold from its last pass, have to be copied without it."""
    return {
        id(tensor): tensor.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        for tensor in tensors_of(value)
        if tensor.grad_fn is not None
    }


def _alter(model: nn.Module, optimizers: list[torch.optim.Optimizer], change: Change) -> None:
    """Makes the copies what an experiment wants."""
    if change.on_cpu:
        model.to("cpu")
    if change.dtype is not None:
        model._apply(lambda tensor: _changed(tensor, change))
        for optimizer in optimizers:
            for state in optimizer.state.values():
                state.update({key: _changed(value, change) for key, value in state.items()})
    for module in [] if change.dropout else model.modules():
        if isinstance(module, _DROPOUT):
            module.eval()
        elif _drops(module):
            module.dropout = 0.0
    for optimizer in optimizers if change.eps is not None else []:
        for group in optimizer.param_groups:
            if "eps" in group:
                group["eps"] = max(float(group["eps"]), change.eps or 0.0)


def _drops(module: nn.Module) -> bool:
    if not module.training:
        return False
    if isinstance(module, _DROPOUT):
        return module.p > 0
    is_known = isinstance(module, (nn.MultiheadAttention, nn.RNNBase))
    return is_known and float(module.dropout) > 0


def _changed(value: Any, change: Change) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach()
    if change.on_cpu:
        tensor = tensor.to("cpu")
    if change.dtype is not None and tensor.is_floating_point():
        tensor = tensor.to(change.dtype)
    return tensor.requires_grad_(value.requires_grad)


def _checked(loss: Any, model: nn.Module) -> torch.Tensor:
    """The loss of ``step_fn``.

    Raises ``TypeError`` if it is none, or without a graph.
    """
    want = "want the loss, a tensor of one element, before backward() is called on it"
    if not isinstance(loss, torch.Tensor):
        raise TypeError(f"step_fn: got {type(loss).__name__} back, {want}")
    if loss.numel() != 1:
        raise TypeError(
            f"step_fn: got a tensor of shape {tuple(loss.shape)} back, {want}; reduce it first, for "
            "example with loss.mean()"
        )
    if any(parameter.grad is not None for parameter in model.parameters()):
        raise TypeError(f"step_fn: it has called backward(), {want}; leave that call out")
    if not loss.requires_grad:
        raise TypeError(
            f"step_fn: got a tensor without a graph back, {want}; leave out detach(), item() and "
            "no_grad()"
        )
    return loss.reshape(())


def _has_attention(loss: torch.Tensor) -> bool:
    def is_attention(node: Any) -> bool:
        return "ScaledDotProduct" in type(node).__name__

    return leads_to([loss.grad_fn], is_attention, _NODES_MAX)


def _measure(done: Experiment, model: nn.Module, loss: torch.Tensor, scale: float) -> None:
    done.loss = float(loss)
    done.finite_loss = math.isfinite(done.loss)
    held = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not held:
        raise ValueError(
            "step_fn: got a loss whose gradient does not reach the model that step_fn was given; want "
            "one computed with `model`, its first argument, and not with another model"
        )
    digest = hashlib.blake2b(bytes_of(loss))
    squares, largest, is_finite = 0.0, 0.0, True
    for gradient in held:
        if scale != 1.0:
            gradient.div_(scale)
        values = _gradients.values_of(gradient)[0].detach()
        digest.update(bytes_of(values))
        wide = values.abs().double() if values.device.type != "mps" else values.abs().float()
        squares += float(wide.square().sum())
        is_finite &= bool(torch.isfinite(values).all())
        finite = wide[torch.isfinite(wide)]
        largest = max(largest, float(finite.max()) if finite.numel() else 0.0)
    done.gradient_norm, done.largest = math.sqrt(squares), largest
    done.finite_gradients = is_finite
    done.bits = digest.digest()


def _update(
    done: Experiment, model: nn.Module, optimizers: list[torch.optim.Optimizer], change: Change
) -> None:
    for optimizer in optimizers:
        optimizer.step()
    done.finite_parameters = all(bool(torch.isfinite(p).all()) for p in model.parameters())
