"""Adam that steps far where the gradient does what was believed, and little where it surprises."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from tangrams.nn.optim.base import DenseOptimizer


class AdaBelief(DenseOptimizer):
    r"""Adam with the variance of the gradient around its moving average in the place of its square.

    .. math::
        m ← β_1 m + (1 - β_1) g, \quad s ← β_2 s + (1 - β_2) (g - m)^2 + ε_0, \quad
        θ ← θ - η\, \frac{m / (1 - β_1^t)}{\sqrt{s / (1 - β_2^t)} + ε}

    Zhuang et al. (2020); weight decay is decoupled. Data set distillation moves its images with it [092].

    Args:
        params: parameters or groups.
        lr: η.
        betas: β₁ and β₂.
        eps: ε.
        eps_root: ε₀, which keeps s from vanishing under a constant gradient.
        weight_decay: the share of a weight, times η, that each step takes away.

    Raises:
        ValueError: for a rate, an ε or a decay below zero, or a β outside [0, 1).

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdaBelief([w], lr=0.1)
        >>> w.square().sum().backward()
        >>> _ = optimizer.step()
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        eps_root: float = 1e-16,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value in (("lr", lr), ("eps", eps), ("eps_root", eps_root), ("weight_decay", weight_decay)):
            if not value >= 0:
                raise ValueError(f"AdaBelief needs {name} ≥ 0, got {value}")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"AdaBelief needs 0 ≤ β < 1, got {betas}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "eps_root": eps_root, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def _move(self, group: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        state = cast(dict[str, Any], self.state[p])
        if not state:
            state["step"], state["mean"], state["variance"] = 0, torch.zeros_like(p), torch.zeros_like(p)
        state["step"] += 1
        (b1, b2), t = group["betas"], state["step"]
        mean, variance = state["mean"], state["variance"]
        mean.lerp_(gradient, 1 - b1)
        surprise = gradient - mean
        variance.mul_(b2).addcmul_(surprise, surprise, value=1 - b2).add_(group["eps_root"])
        p.mul_(1 - group["lr"] * group["weight_decay"])
        scale = (variance / (1 - b2**t)).sqrt_().add_(group["eps"])
        p.addcdiv_(mean, scale, value=-group["lr"] / (1 - b1**t))
