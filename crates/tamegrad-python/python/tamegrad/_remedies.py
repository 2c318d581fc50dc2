"""Remedies for a user's own torch model: initialisation, batch norm, penalties."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

_WEIGHTED = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_NORMS = {
    nn.Linear: nn.BatchNorm1d,
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}
_ACTIVATIONS = tuple(
    getattr(nn, name)
    for name in (
        "ReLU", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish", "Tanh",
        "Sigmoid", "Softplus", "Hardtanh", "ReLU6", "Hardswish", "Softsign",
    )
)  # fmt: skip


@torch.no_grad()
def reinitialize_(
    model: nn.Module,
    batch: Any = None,
    *,
    scheme: Literal["lsuv", "he", "orthogonal"] = "lsuv",
    tolerance: float = 0.1,
    tries: int = 10,
) -> dict[str, float]:
    """Re-initialises the weights of linear and convolutional layers, and sets their biases to 0.

    ``he``: normal, variance 2 / fan-in (He 2015). ``orthogonal``: orthogonal (Saxe 2014).
    ``lsuv``: orthogonal, then, layer by layer in the order of execution, divided by the standard
    deviation of the layer's output on ``batch`` until that is 1 within ``tolerance`` (Mishkin and
    Matas 2016); ``batch`` is a tensor, or a tuple of the model's arguments.

    Returns the standard deviation of every layer's output on the batch, by name (``lsuv`` only). An
    existing optimizer keeps its state, so create a new one.
    """
    if scheme not in ("lsuv", "he", "orthogonal"):
        raise ValueError(f"scheme: got {scheme!r}, want 'lsuv', 'he' or 'orthogonal'")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, _WEIGHTED)}
    if not layers:
        raise ValueError("model: got no linear or convolutional layer, want at least one")
    if scheme == "lsuv" and batch is None:
        raise ValueError("batch: got None, want a batch of inputs, which lsuv needs")
    for layer in layers.values():
        if scheme == "he":
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        else:
            nn.init.orthogonal_(layer.weight)
        if layer.bias is not None:
            layer.bias.zero_()
    if scheme != "lsuv":
        return {}
    return _scale_to_unit(model, batch, layers, tolerance, tries)


def _scale_to_unit(
    model: nn.Module, batch: Any, layers: dict[str, nn.Module], tolerance: float, tries: int
) -> dict[str, float]:
    names = {layer: name for name, layer in layers.items()}
    seen: dict[str, float] = {}

    def rescale(layer: nn.Module, inputs: tuple, output: torch.Tensor):
        # A layer that is called again keeps the scale of its first call.
        if names[layer] in seen:
            return None
        for _ in range(tries):
            deviation = float(output.float().std())
            if not deviation > 0.0 or abs(deviation - 1.0) <= tolerance:
                break
            layer.weight.div_(deviation)
            output = layer.forward(*inputs)
        seen[names[layer]] = float(output.float().std())
        return output

    handles = [layer.register_forward_hook(rescale) for layer in layers.values()]
    was_training = model.training
    model.eval()
    try:
        model(*batch) if isinstance(batch, tuple) else model(batch)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return seen


def add_batch_norm(model: nn.Module, place: Literal["before", "after"] = "before") -> int:
    """Adds batch norm, in place, before or after every activation that follows a linear or
    convolutional layer in an ``nn.Sequential`` (Ioffe and Szegedy 2015). Returns how many were added.

    The last linear layer, with no activation after it, gets none. A model that orders its layers in
    its own ``forward`` cannot be rewritten: the error names the modules. Create a new optimizer
    afterwards, because an existing one does not know the new parameters.
    """
    if place not in ("before", "after"):
        raise ValueError(f"place: got {place!r}, want 'before' or 'after'")
    chains = [m for m in model.modules() if isinstance(m, nn.Sequential)]
    held = {id(layer) for chain in chains for layer in chain}
    loose = [
        name
        for name, module in model.named_modules()
        if isinstance(module, _ACTIVATIONS) and id(module) not in held
    ]
    added = sum(_add_to(chain, place) for chain in chains)
    if added == 0:
        reason = (
            f"{', '.join(loose)}: used in its own forward, where the order of layers cannot be seen"
            if loose
            else "it has no nn.Sequential with an activation right after a linear or convolutional layer"
        )
        raise ValueError(
            f"batch norm cannot be added to {type(model).__name__}: {reason}; add nn.BatchNorm to "
            "its code by hand"
        )
    return added


def _add_to(chain: nn.Sequential, place: str) -> int:
    layers: list[nn.Module] = []
    added = 0
    items = list(chain)
    for index, layer in enumerate(items):
        before = items[index - 1] if index else None
        kind = next((k for k in _NORMS if type(before) is k), None)
        fits = isinstance(layer, _ACTIVATIONS) and kind is not None
        if not fits:
            layers.append(layer)
            continue
        width = before.out_features if isinstance(before, nn.Linear) else before.out_channels
        norm = _NORMS[kind](width).to(before.weight.device, before.weight.dtype)
        norm.train(layer.training)
        layers += [norm, layer] if place == "before" else [layer, norm]
        added += 1
    if added:
        for name in list(chain._modules):
            del chain._modules[name]
        for index, layer in enumerate(layers):
            chain.add_module(str(index), layer)
    return added


def weight_penalty(model: nn.Module, l1: float = 0.0, l2: float = 0.0) -> torch.Tensor:
    """The penalty ``l1 * sum |w| + l2 * sum w^2`` over all trainable weight matrices and kernels, to add
    to the loss. Biases and norm scales are left out."""
    weights = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    if not weights:
        raise ValueError("model: got no trainable weight matrix, want at least one")
    total = torch.zeros((), device=weights[0].device)
    for weight in weights:
        if l1:
            total = total + l1 * weight.abs().sum()
        if l2:
            total = total + l2 * weight.square().sum()
    return total
