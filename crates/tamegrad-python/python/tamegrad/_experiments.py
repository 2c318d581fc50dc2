"""One step taken again under changed conditions, on copies, with everything else left as it was."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from . import _backward, _gradients
from ._calls import leads_to, tensors_of
from ._incident import Incident
from ._names import unwrapped
from ._nest import mapped
from ._safetensors import bytes_of, size_of
from ._state import random_state, set_random_state
from ._taps import compiled_call

_NODES_MAX = 100_000
"""Nodes of a graph that are looked at for an attention."""
_EPS = 1e-4
"""The eps of the experiment ``larger-eps``."""
_DROPOUT = nn.modules.dropout._DropoutNd
_DDP = nn.parallel.DistributedDataParallel

StepFn = Callable[[nn.Module, Any], torch.Tensor]


@dataclass
class Experiment:
    """One repetition of the step, or why there was none."""

    name: str
    state: str = "ran"
    """``ran``, ``does-not-apply`` or ``not-run``."""
    why: str | None = None
    """Why it was not run, in words."""
    loss: float | None = None
    gradient_norm: float | None = None
    """L2 norm of all gradients; NaN or infinite if one of them is."""
    largest: float | None = None
    """The largest finite element of the gradients, in magnitude."""
    finite_loss: bool | None = None
    finite_gradients: bool | None = None
    finite_parameters: bool | None = None
    """After the update, where one was made."""
    breaks: bool | None = None
    """Whether something was not finite, or the gradient above the limit; ``None`` if unknown."""
    seconds: float = 0.0
    error: str | None = None
    """What was raised instead."""
    bits: bytes = field(default=b"", repr=False)
    """A digest of loss and gradients."""


@dataclass
class Facts:
    """What the first repetition has shown of the step."""

    dtypes: set[torch.dtype]
    devices: set[str]
    uses_autocast: bool = False
    uses_attention: bool = False
    is_compiled: bool = False
    has_dropout: bool = False
    eps: float | None = None
    """The smallest eps of the optimizers."""
    state_dtypes: set[torch.dtype] = field(default_factory=set)
    has_optimizer: bool = False


@dataclass(frozen=True)
class Change:
    """The conditions of an experiment."""

    name: str
    why_not: Callable[[Facts], str | None] = lambda facts: None
    """Why it does not apply, in words."""
    dtype: torch.dtype | None = None
    """The type of the model and of the batch's floats."""
    autocast: bool = True
    compiles: bool = True
    plain_attention: bool = False
    on_cpu: bool = False
    dropout: bool = True
    updates: bool = False
    eps: float | None = None


def _unless(condition: Callable[[Facts], bool], why: str) -> Callable[[Facts], str | None]:
    return lambda facts: None if condition(facts) else why


def _f32(facts: Facts) -> str | None:
    if facts.uses_autocast or facts.dtypes != {torch.float32}:
        return None
    return "it is in float32"


_NO_OPTIMIZER = "no optimizer was given"

AGAIN = Change("again")
CHANGES = [
    Change("again-2"),
    # A compiled pass has its types built in.
    Change("f32", _f32, dtype=torch.float32, autocast=False, compiles=False),
    Change(
        "f64",
        _unless(lambda facts: facts.devices <= {"cpu", "cuda"}, "the device has no float64"),
        dtype=torch.float64,
        autocast=False,
        compiles=False,
    ),
    Change(
        "no-autocast",
        _unless(lambda facts: facts.uses_autocast, "no autocast is on"),
        autocast=False,
        compiles=False,
    ),
    Change(
        "no-compile",
        _unless(lambda facts: facts.is_compiled, "nothing is compiled"),
        compiles=False,
    ),
    Change(
        "plain-attention",
        _unless(lambda facts: facts.uses_attention, "there is no fused attention"),
        plain_attention=True,
    ),
    Change(
        "no-dropout",
        _unless(lambda facts: facts.has_dropout, "no module drops anything"),
        dropout=False,
    ),
    Change(
        "cpu",
        _unless(lambda facts: facts.devices != {"cpu"}, "it is on the CPU"),
        on_cpu=True,
        compiles=False,
    ),
]
UPDATE = Change("update", _unless(lambda facts: facts.has_optimizer, _NO_OPTIMIZER), updates=True)
UPDATES = [
    UPDATE,
    Change(
        "larger-eps",
        lambda facts: (
            _NO_OPTIMIZER
            if not facts.has_optimizer
            else "the optimizer has no eps"
            if facts.eps is None
            else f"eps is {facts.eps:g}"
            if facts.eps >= _EPS
            else None
        ),
        updates=True,
        eps=_EPS,
    ),
    Change(
        "f32-state",
        lambda facts: (
            _NO_OPTIMIZER
            if not facts.has_optimizer
            else None
            if any(dtype.itemsize < 4 for dtype in facts.state_dtypes)
            else "parameters and state are no narrower than float32"
        ),
        dtype=torch.float32,
        updates=True,
    ),
]


class Bench:
    """Takes the step of an incident again, as often as wanted."""

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
        autocast = _Autocast(is_off=not change.autocast)
        with _conditions(change), autocast, torch.enable_grad():
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


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Puts back, on leaving, the random states, the settings of torch and the gradients of a model."""
    chance = random_state()
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    with contextlib.ExitStack() as parts:
        parts.enter_context(_backward.unseen())
        parts.callback(set_random_state, chance)
        for put, value in _settings():
            parts.callback(put, value)
        for parameter, gradient in gradients:
            parts.callback(setattr, parameter, "grad", gradient)
            # A step_fn that uses this model and not the one it is given would add to it in place.
            parameter.grad = None
        yield


def _settings() -> list[tuple[Callable[[Any], Any], Any]]:
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    checks_nan = torch.is_anomaly_check_nan_enabled()
    known: list[tuple[Callable[[Any], Any], Any]] = [
        (torch.set_grad_enabled, torch.is_grad_enabled()),
        (torch.set_default_dtype, torch.get_default_dtype()),
        (lambda value: torch.set_anomaly_enabled(value, checks_nan), torch.is_anomaly_enabled()),
        (
            lambda value: torch.use_deterministic_algorithms(value, warn_only=warns),
            deterministic,
        ),
    ]
    # torch refuses to tell it where both its old and its new names were set.
    with contextlib.suppress(RuntimeError):
        precision = torch.get_float32_matmul_precision()
        known.append((_set_precision, precision))
    return known


def _set_precision(precision: str) -> None:
    if torch.get_float32_matmul_precision() != precision:
        torch.set_float32_matmul_precision(precision)


@contextlib.contextmanager
def _conditions(change: Change) -> Iterator[None]:
    with contextlib.ExitStack() as parts:
        if change.dtype is not None:
            parts.callback(torch.set_default_dtype, torch.get_default_dtype())
            torch.set_default_dtype(change.dtype)
            with contextlib.suppress(RuntimeError):
                parts.callback(_set_precision, torch.get_float32_matmul_precision())
                _set_precision("highest")
        if not change.autocast:
            for kind in ("cpu", "cuda"):
                if torch.is_autocast_enabled(kind):
                    parts.enter_context(torch.autocast(kind, enabled=False))
        if not change.compiles:
            parts.enter_context(_without_compiling())
        if change.plain_attention:
            attention = torch.nn.attention
            parts.enter_context(attention.sdpa_kernel(attention.SDPBackend.MATH))
        yield


def _without_compiling() -> contextlib.AbstractContextManager[Any]:
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is not None:
        return set_stance("force_eager")
    from torch import _dynamo

    return _dynamo.config.patch(disable=True)


class _Autocast:
    """Sees whether an autocast is entered, and has it off if that is wanted."""

    def __init__(self, *, is_off: bool) -> None:
        self.is_seen = False
        self._is_off = is_off
        self._enter: Any = None
        self._turned_off: list[Any] = []

    def __enter__(self) -> None:
        self._enter = original = torch.autocast.__enter__

        def enter(context: Any) -> Any:
            if context._enabled:
                self.is_seen = True
                if self._is_off:
                    context._enabled = False
                    self._turned_off.append(context)
            return original(context)

        torch.autocast.__enter__ = enter

    def __exit__(self, *error: object) -> None:
        torch.autocast.__enter__ = self._enter
        for context in self._turned_off:
            context._enabled = True


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
