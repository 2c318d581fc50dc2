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
    """Initialises the weights of linear and convolutional layers anew, biases to 0.

    ``he``: normal, variance 2 / fan-in (He 2015). ``orthogonal``: as it says (Saxe 2014).
    ``lsuv``: orthogonal, then, layer by layer in the order of execution, divided by the standard
    deviation of its output on ``batch`` until that is 1 within ``tolerance`` (Mishkin and Matas
    2016); ``batch`` is a tensor, or a tuple of the model's arguments.

    Returns the standard deviation of every layer's output on the batch (of ``lsuv``), by name. An
    optimizer that exists already keeps its state: make it anew.
    """
    if scheme not in ("lsuv", "he", "orthogonal"):
        raise ValueError(f"scheme: got {scheme!r}, want 'lsuv', 'he' or 'orthogonal'")
    layers = {name: m for name, m in model.named_modules() if isinstance(m, _WEIGHTED)}
    if not layers:
        raise ValueError("model: it has no linear or convolutional layer to initialise")
    if scheme == "lsuv" and batch is None:
        raise ValueError("batch: got none, want a batch of inputs, by which lsuv measures")
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
    """Puts batch norm before or after every activation that follows a linear or convolutional
    layer in an ``nn.Sequential``, in place (Ioffe and Szegedy 2015); gives their number.

    The last linear layer, with no activation after it, gets none. A model whose order of layers is
    written in a ``forward`` of its own cannot be rewritten: that is an error that names the
    modules. Make the optimizer anew: it does not know the new parameters.
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
            f"{', '.join(loose)}: used in a forward of its own, whose order of layers cannot be seen"
            if loose
            else "no nn.Sequential in it has an activation right after a linear or convolutional layer"
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
    """The penalty ``l1 * sum |w| + l2 * sum w^2`` over all weight matrices and kernels that are
    trained, to add to the loss. Biases and norm scales are left out."""
    weights = [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]
    if not weights:
        raise ValueError("model: it has no weight matrix that is trained")
    total = torch.zeros((), device=weights[0].device)
    for weight in weights:
        if l1:
            total = total + l1 * weight.abs().sum()
        if l2:
            total = total + l2 * weight.square().sum()
    return total
