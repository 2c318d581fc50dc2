"""Remedies for a user's own torch model: initialisation, norms, skip connections, activations, penalties."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

WEIGHTED = (
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
    scheme: Literal["lsuv", "he", "xavier", "orthogonal", "torch"] = "lsuv",
    tolerance: float = 0.1,
    tries: int = 10,
) -> dict[str, float]:
    """Re-initialises the weights of linear, convolutional and recurrent layers, and sets their biases
    to 0.

    ``he``: normal, variance 2 / fan-in (He 2015). ``xavier``: normal, variance 2 / (fan-in + fan-out)
    (Glorot and Bengio 2010). ``orthogonal``: orthogonal (Saxe 2014). ``lsuv``: orthogonal, then, layer
    by layer in the order of execution, divided by the standard deviation of the layer's output on
    ``batch`` until that is 1 within ``tolerance`` (Mishkin and Matas 2016); ``batch`` is a tensor, or a
    tuple of the model's arguments. Recurrent weights of ``nn.RNN``, ``nn.LSTM`` and ``nn.GRU`` are
    orthogonal, and matrices that are parameters of other modules are drawn as those of linear layers.
    ``torch``: every module by its own ``reset_parameters``, biases included.

    Returns the standard deviation of every layer's output on the batch, by name (``lsuv`` only). An
    existing optimizer keeps its state, so create a new one.
    """
    schemes = ("lsuv", "he", "xavier", "orthogonal", "torch")
    if scheme not in schemes:
        raise ValueError(f"scheme: got {scheme!r}, want one of {', '.join(map(repr, schemes))}")
    if scheme == "torch":
        _reset(model)
        return {}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, WEIGHTED)}
    cells = [m for m in model.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]
    loose = [
        p
        for m in model.modules()
        if type(m).__module__.split(".")[0] != "torch"
        for p in m.parameters(recurse=False)
        if p.dim() == 2
    ]
    if not layers and not cells and not loose:
        raise ValueError("model: got no linear or convolutional layer, want at least one")
    if scheme == "lsuv" and batch is None:
        raise ValueError("batch: got None, want a batch of inputs, which lsuv needs")
    for layer in layers.values():
        _draw(layer.weight, scheme)
        if layer.bias is not None:
            layer.bias.zero_()
    for weight in loose:
        _draw(weight, scheme)
    for cell in cells:
        for name, parameter in cell.named_parameters():
            if "weight_hh" in name:
                for gate in parameter.split(parameter.shape[1]):
                    nn.init.orthogonal_(gate)
            elif "weight" in name:
                nn.init.xavier_uniform_(parameter)
            else:
                parameter.zero_()
    if scheme != "lsuv":
        return {}
    return _scale_to_unit(model, batch, layers, tolerance, tries)


def _draw(weight: torch.Tensor, scheme: str) -> None:
    if scheme == "he":
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
    elif scheme == "xavier":
        nn.init.xavier_normal_(weight)
    else:
        nn.init.orthogonal_(weight)


def _reset(model: nn.Module) -> None:
    found = [m for m in model.modules() if callable(getattr(m, "reset_parameters", None))]
    if not found:
        raise ValueError("model: got no module with reset_parameters, want at least one")
    for module in found:
        module.reset_parameters()


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


_ADDED = "added_norm"
"""The name of a norm within the layer that it belongs to."""


def add_norm(
    model: nn.Module,
    kind: Literal["batch", "layer", "rms"] = "layer",
    place: Literal["before", "after"] = "before",
) -> int:
    """Adds batch, layer or RMS norm (Ioffe and Szegedy 2015; Ba et al. 2016; Zhang and Sennrich 2019),
    in place, to every linear and convolutional layer but the last, whatever the model's own
    ``forward``. Returns how many were added.

    ``before`` the activation: the layer's output is normalised; ``after`` it: the input of the next
    layer. The norm is a submodule of its layer. A convolution gets group norm with one group for layer and
    RMS norm. Create a new optimizer afterwards, because an existing one does not know the new
    parameters. Raises ``ValueError`` if there are fewer than two such layers.
    """
    for name, value, names in (
        ("kind", kind, ("batch", "layer", "rms")),
        ("place", place, ("before", "after")),
    ):
        if value not in names:
            raise ValueError(f"{name}: got {value!r}, want one of {', '.join(map(repr, names))}")
    layers = [m for m in model.modules() if isinstance(m, tuple(_NORMS))]
    if len(layers) < 2:
        raise ValueError(
            f"{kind} norm cannot be added to {type(model).__name__}: it has {len(layers)} linear or "
            "convolutional layers, want at least two"
        )
    chosen = layers[:-1] if place == "before" else layers[1:]
    for layer in chosen:
        norm = _norm_of(layer, kind, place).to(layer.weight.device, layer.weight.dtype)
        norm.train(layer.training)
        layer.add_module(_ADDED, norm)
        if place == "before":
            layer.register_forward_hook(_normalise_output)
        else:
            layer.register_forward_pre_hook(_normalise_input)
    return len(chosen)


def _norm_of(layer: nn.Module, kind: str, place: str) -> nn.Module:
    is_linear = isinstance(layer, nn.Linear)
    names = ("out_features", "in_features") if is_linear else ("out_channels", "in_channels")
    width = getattr(layer, names[0] if place == "before" else names[1])
    if kind == "batch":
        return _NORMS[next(k for k in _NORMS if isinstance(layer, k))](width)
    if not is_linear:
        return nn.GroupNorm(1, width)
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width)


def _normalised(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    norm = getattr(layer, _ADDED)
    if isinstance(norm, nn.BatchNorm1d) and isinstance(layer, nn.Linear) and x.dim() > 2:
        return norm(x.flatten(0, -2)).view_as(x)
    return norm(x)


def _normalise_output(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return _normalised(layer, output)


def _normalise_input(layer: nn.Module, inputs: tuple) -> tuple:
    return (_normalised(layer, inputs[0]), *inputs[1:])


def add_residual(model: nn.Module) -> int:
    """Adds its input to the output of every linear layer that keeps its width (He et al. 2016), in
    place. Returns the number of skip connections.

    Raises ``ValueError`` if no layer keeps its width.
    """
    kept = [m for m in model.modules() if type(m) is nn.Linear and m.in_features == m.out_features]
    if not kept:
        raise ValueError(f"{type(model).__name__} has no linear layer that keeps its width")
    for layer in kept:
        layer.register_forward_hook(_add_input)
    return len(kept)


def _add_input(layer: nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
    return output + inputs[0]


def replace_activations(model: nn.Module, path: str | None = None) -> int:
    """Replaces custom activations with ``nn.ReLU``, in place: the module at a path, or the one after
    the layer at that path, or every module without parameters that is not one of torch's. Returns how
    many were replaced.

    Raises ``ValueError`` if there is none: an activation that is a function is part of the model's code.
    """
    names = [name for name, module in model.named_modules() if name and _is_own(module)]
    if path is not None:
        after = _next_sibling(model, path)
        wanted = (path, after)
        modules = dict(model.named_modules())
        near = [n for n in wanted if n in names or isinstance(modules.get(n), _ACTIVATIONS)]
        names = near[:1] or names
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.ReLU())
    if not names:
        raise ValueError("the model's activations are not modules")
    return len(names)


def _is_own(module: nn.Module) -> bool:
    is_plain = not any(True for _ in module.children()) and not any(
        True for _ in module.parameters()
    )
    return is_plain and type(module).__module__.split(".")[0] != "torch"


def _next_sibling(model: nn.Module, path: str) -> str | None:
    parent, _, child = path.rpartition(".")
    try:
        siblings = [name for name, _ in model.get_submodule(parent).named_children()]
    except AttributeError:
        return None
    at = siblings.index(child) + 1 if child in siblings else len(siblings)
    return f"{parent}.{siblings[at]}".lstrip(".") if at < len(siblings) else None


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
