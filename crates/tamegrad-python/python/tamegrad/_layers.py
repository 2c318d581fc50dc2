"""What is known of a layer by the type of its module."""

from __future__ import annotations

from torch import nn

_BOUNDED = (
    nn.Tanh,
    nn.Sigmoid,
    nn.Softmax,
    nn.Hardtanh,
    nn.Hardsigmoid,
    nn.Softsign,
    nn.ReLU6,
)
_LINEAR = (
    nn.ReLU,
    nn.LeakyReLU,
    nn.PReLU,
    nn.RReLU,
    nn.ELU,
    nn.CELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
    nn.Softplus,
    nn.LogSigmoid,
    nn.Hardshrink,
    nn.Softshrink,
    nn.Tanhshrink,
    nn.Threshold,
)
_BATCH = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
_LAYER = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# A word of a class's own name that tells of an activation which grows faster than its input.
_SUPERLINEAR = ("exp", "square", "cube", "pow", "sinh")

LayerRow = tuple[str, tuple[str, str] | None, str | None, bool | None, bool]


def row(name: str, module: nn.Module, recurrent: bool = False) -> LayerRow:
    """Name, activation with its growth, normalisation, skip connection, recurrence of a layer.

    What the type does not tell is ``None``.
    """
    return name, activation(module), normalisation(module), None, recurrent


def is_recurrent(layer: LayerRow) -> bool:
    """Whether a layer is a step of a recurrence."""
    return layer[4]


def activation(module: nn.Module) -> tuple[str, str] | None:
    """Name and growth (``bounded``, ``linear``, ``superlinear``) of an activation's module."""
    kind = type(module).__name__
    if isinstance(module, _BOUNDED):
        return kind.lower(), "bounded"
    if isinstance(module, _LINEAR):
        return kind.lower(), "linear"
    owns_nothing = next(module.parameters(), None) is None and not any(
        True for _ in module.children()
    )
    if owns_nothing and any(word in kind.lower() for word in _SUPERLINEAR):
        return kind.lower(), "superlinear"
    return None


def normalisation(module: nn.Module) -> str | None:
    """``batch`` or ``layer`` for a module that normalises."""
    if isinstance(module, _BATCH):
        return "batch"
    if isinstance(module, _LAYER) or type(module).__name__.endswith("RMSNorm"):
        return "layer"
    return None
