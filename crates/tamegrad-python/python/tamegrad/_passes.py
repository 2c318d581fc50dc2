"""The passes of a step: what the model was given, what was logged, and what hooks saw of its layers."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from . import _device, _gradients
from ._core import Guard as Core
from ._core import Scan, Trace
from ._probes import Inputs, Probes, first_float
from ._ranks import Ranks
from ._telling import Teller

_CPU = torch.device("cpu")
_LOSSES_MAX = 1024
"""Losses of micro-batches that are kept for one step."""
_REPLAYS_MAX = 5
"""Calm passes that are run again because hooks cannot see them."""


class Passes:
    """The forward and backward passes of a model, one or several to a step."""

    def __init__(self, model: nn.Module, ranks: Ranks, teller: Teller, *, watches: bool) -> None:
        self.probes = Probes(model)
        self.inputs: Inputs | None = None
        self.trace: Trace | None = None
        self._model = model
        self._ranks = ranks
        self._teller = teller
        self._watches = watches
        self._is_compiled = _is_compiled(model)
        self._replays = 0
        self._holds_broken = False
        """Whether the inputs are kept that made a loss that is not finite."""
        self._losses: list[Any] = []
        self._model_losses: list[Any] = []
        self.tells_loss = False
        """Whether the model's output holds its loss."""
        self._metric: Any = None
        self._data: torch.Tensor | _device.Numbers | None = None
        self._targets: torch.Tensor | _device.Numbers | None = None
        self._batch = Scan()

    def attach(self) -> list[Any]:
        """Hooks that see what the model is given, and its output; gives their handles."""
        is_wrapper = type(self._model).__name__ == "OptimizedModule"
        hooked = self._model if is_wrapper else self.probes.model
        self.arm_first()
        return [
            hooked.register_forward_pre_hook(self._enter, with_kwargs=True),
            hooked.register_forward_hook(self._leave),
        ]

    def arm_first(self) -> None:
        """Has hooks at every layer in the coming pass, the first of a run."""
        if self._watches and not self._is_compiled:
            self.probes.arm()

    def arm(self, core: Core, step: int) -> None:
        """Has hooks at every layer in the coming pass, if the core wants them there."""
        if not self._is_compiled and core.wants_trace(step):
            self.probes.arm()

    def detach(self) -> None:
        """Takes the hooks at layers away and lets go of what the model was given."""
        self.probes.disarm()
        self.inputs = None

    # --- what is seen and what is logged -------------------------------------------------------

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        # The pass of a micro-batch whose loss is broken is the one to look into.
        if torch._C._current_graph_task_id() == -1 and not self._holds_broken:
            self.inputs = Inputs(args, kwargs)

    def _leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return
        if self.inputs is not None and not self._holds_broken:
            tensor = first_float(output)
            if tensor is not None and tensor.requires_grad:
                # A call that runs no Python code: it comes at every backward pass.
                keep = functools.partial(setattr, self.inputs, "output_gradient")
                tensor.register_hook(keep)
        loss = _loss_in(output)
        if loss is not None:
            self.tells_loss = True
            self._keep(self._model_losses, loss)

    def _keep(self, losses: list[Any], loss: Any) -> None:
        """Keeps the loss of a pass, and its inputs for the step when it is broken. What a device
        holds is not waited for."""
        value = self._batch.number(loss)
        if value is None and isinstance(loss, torch.Tensor):
            loss = loss.detach()
        if value is None and getattr(loss, "device", _CPU) == _CPU:
            value = float(loss)
        if value is not None:
            self._holds_broken |= self.inputs is not None and not math.isfinite(value)
        losses.append(loss if value is None else value)
        if len(losses) > _LOSSES_MAX:
            del losses[0]

    def log(self, loss: Any, metric: Any, inputs: Any, targets: Any) -> None:
        """Keeps what was logged for the step at hand."""
        if loss is not None:
            self._keep(self._losses, loss)
        if metric is not None:
            self._metric = metric.detach() if isinstance(metric, torch.Tensor) else metric
        if targets is not None and targets.is_floating_point():
            self._targets = targets.detach()
        if inputs is not None:
            self._data = inputs.detach()

    def take_logged(self, nonfinite: int) -> dict[str, Any]:
        """What is known of the step at hand, whose gradients have so many elements that are not
        finite; what was logged is used up."""
        losses = self._losses or self._model_losses
        self.forget_losses()
        metric, self._metric = self._metric, None
        inputs, self._data = self._data, None
        targets, self._targets = self._targets, None
        # Broken inputs under gradients that are not: a step that a GradScaler has left out.
        is_of_step = not self._holds_broken or nonfinite
        if inputs is None and self.inputs is not None and is_of_step:
            inputs = self.inputs.first_float()
        return {
            "losses": losses,
            "metric": metric,
            "trace": self.trace,
            "inputs": inputs,
            "targets": targets,
        }

    def take_losses(self) -> list[Any]:
        """The losses that were logged since the step; they are used up."""
        losses, self._losses = self._losses, []
        return losses

    def forget_losses(self) -> None:
        """Lets go of the losses of a step."""
        self._losses, self._model_losses = [], []

    def end(self, *, keeps_inputs: bool = False) -> None:
        """Ends the step."""
        self._holds_broken = False
        if not keeps_inputs:
            # The gradient at the output, of a language model's logits, is large.
            self.inputs = None

    def numbers(self, tensor: torch.Tensor | _device.Numbers | None) -> _device.Numbers | None:
        """Statistics of a tensor of any kind."""
        if tensor is None or isinstance(tensor, tuple):
            # A tuple is what was logged before the run was interrupted.
            return tensor
        numbers = self._batch.numbers_of(tensor)
        if numbers is not None:
            return numbers
        dense, missing = _gradients.values_of(tensor.detach())
        if dense.device.type != "cpu":
            return _gradients.with_zeros(_device.exact(dense), missing)
        numbers = self._batch.numbers_of(dense)
        return None if numbers is None else _gradients.with_zeros(numbers, missing)

    # --- layers --------------------------------------------------------------------------------

    def take_trace(self, core: Core | None, step: int) -> None:
        """Takes what hooks saw at the layers in this step's pass, or runs it again where they see
        nothing."""
        armed = self.probes.armed
        self.trace = self._ranks.combine_trace(self.probes.collect()) if armed else None
        if self.trace is None and self._wants_replay(core, step) and self.inputs is not None:
            self._replays += 1
            self.trace = self.repeated()

    def _wants_replay(self, core: Core | None, step: int) -> bool:
        """Whether a pass that hooks cannot see, of a compiled model, is run again without
        compiling: a few times, for a history of gains."""
        if not self._watches or self._replays >= _REPLAYS_MAX:
            return False
        return core is None or (self._is_compiled and core.wants_trace(step))

    def repeated(self) -> Trace | None:
        """What hooks at every layer see of the latest pass when it is run again. Among several ranks
        all must call it."""
        trace = None
        if self.inputs is not None:
            try:
                trace = self.probes.replay(self.inputs)
            except Exception as error:
                self._teller.warn(f"the pass could not be repeated to see the layers: {error}")
        return self._ranks.combine_trace(trace)

    # --- the state -----------------------------------------------------------------------------

    def state(self, *, has_core: bool) -> dict[str, Any]:
        """The entries of the guard's state that are known here."""
        modules, calls = self.probes.places() if has_core else ([], [])
        listed = [self.numbers(tensor) for tensor in (self._data, self._targets)]
        inputs, targets = (None if numbers is None else list(numbers) for numbers in listed)
        return {
            "modules": modules,
            "calls": calls,
            "replays": self._replays,
            "loss": mean(self._losses, 0),
            "metric": None if self._metric is None else float(self._metric),
            "inputs": inputs,
            "targets": targets,
        }

    def restore(self, entries: dict[str, Any]) -> None:
        """Takes the entries of a state that was checked."""
        self._replays = entries["replays"]
        self._losses = [] if entries["loss"] is None else [entries["loss"]]
        self._metric = entries["metric"]
        self._data, self._targets = (
            None if numbers is None else tuple(numbers)
            for numbers in (entries["inputs"], entries["targets"])
        )
        self.end()

    def resume(self, entries: dict[str, Any], core: Core | None, step: int) -> None:
        """Has the hooks of the coming pass in place if the core wants them there."""
        self.probes.restore(entries["modules"], entries["calls"], fixed=core is not None)
        if core is None:
            self.arm_first()
        else:
            self.arm(core, step)


def mean(losses: list[Any], nonfinite: int) -> float | None:
    """The mean loss of the micro-batches of a step whose gradients have so many elements that are not
    finite. Without any, a loss that is not finite is of a step that a ``GradScaler`` has left out."""
    known = [float(loss) for loss in losses]
    finite = [loss for loss in known if math.isfinite(loss)]
    counted = finite if finite and not nonfinite else known
    return sum(counted) / len(counted) if counted else None


def _loss_in(output: Any) -> torch.Tensor | None:
    """The loss, where a model's output is a mapping that holds it."""
    loss = output.get("loss") if isinstance(output, Mapping) else None
    is_loss = isinstance(loss, torch.Tensor) and loss.requires_grad and loss.numel() == 1
    return loss if is_loss else None


def _is_compiled(model: nn.Module) -> bool:
    return any(
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
