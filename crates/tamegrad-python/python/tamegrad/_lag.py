"""How far Adam's second moment lags behind the gradient."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def second_moment_lag(
    parameters: list[torch.Tensor], optimizers: Iterable[torch.optim.Optimizer]
) -> list[float | None]:
    """RMS of g / sqrt(v) of each parameter before v takes in g, v divided by 1 - beta2^t
    (Wortsman 2023, section 3.4); ``None`` where there is no v or no gradient."""
    betas: dict[int, tuple[float, torch.optim.Optimizer]] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                beta = group.get("betas", (None, None))[1]
                if beta is not None:
                    betas[id(parameter)] = (float(beta), optimizer)
    return [_lag_of(parameter, *betas.get(id(parameter), (0.0, None))) for parameter in parameters]


def _lag_of(
    parameter: torch.Tensor, beta: float, optimizer: torch.optim.Optimizer | None
) -> float | None:
    gradient = parameter.grad
    if optimizer is None or gradient is None or gradient.layout != torch.strided:
        return None
    state = optimizer.state.get(parameter, {})
    moment, steps = state.get("exp_avg_sq"), state.get("step")
    if not isinstance(moment, torch.Tensor) or moment.shape != gradient.shape or steps is None:
        return None
    correction = 1.0 - beta ** float(steps)
    if correction <= 0.0:
        return None
    ratio = gradient.detach().double().square() / (moment.double() / correction).clamp(min=1e-30)
    return float(ratio.mean().sqrt())
