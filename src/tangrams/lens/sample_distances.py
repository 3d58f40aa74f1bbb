"""How far two sets of samples are from each other as distributions."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.learners.base import HasGram
from tangrams.operators import ConvergenceError


def squared_mmd(kernel: HasGram, x: Tensor, y: Tensor) -> Tensor:
    r"""The squared maximum mean discrepancy of two sets of samples, each sample with itself included.

    .. math:: \frac{1}{n^2} \sum k(x_i, x_j) + \frac{1}{m^2} \sum k(y_i, y_j) - \frac{2}{nm} \sum k(x_i, y_j)

    Args:
        kernel: k.
        x: n samples.
        y: m samples.
    """
    return kernel.gram(x).mean() + kernel.gram(y).mean() - 2 * kernel.gram(x, y).mean()


def sinkhorn_divergence(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, "m d"],
    *,
    blur: float = 0.05,
    rtol: float = 1e-6,
    max_iterations: int = 10_000,
) -> Float[Tensor, ""]:
    r"""The debiased entropic transport cost between two sets of samples, for the cost |x − y|²/2.

    .. math:: S_ε(x, y) = OT_ε(x, y) - \tfrac12 OT_ε(x, x) - \tfrac12 OT_ε(y, y), \qquad ε = \text{blur}^2

    by Sinkhorn's iterations in the log domain, from a blur as large as the data down to the one asked for. As blur
    goes to zero it is the optimal transport cost. Computed in float64; not differentiable.

    Args:
        x: n samples.
        y: m samples.
        blur: of the unit of the samples.
        rtol: change of the potentials, relative to the cost, at which to stop.
        max_iterations: at the last blur.

    Raises:
        ValueError: if ``blur`` is not positive, ``max_iterations < 1``, or a set is empty or not finite.
        ConvergenceError: if the iterations do not settle: take a larger blur.
    """
    if not blur > 0:
        raise ValueError(f"sinkhorn_divergence needs blur > 0, got {blur}")
    if max_iterations < 1:
        raise ValueError(f"sinkhorn_divergence needs max_iterations ≥ 1, got {max_iterations}")
    if not bool(torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("sinkhorn_divergence got samples that are not finite: clean the data")
    if not len(x) or not len(y):
        raise ValueError(f"sinkhorn_divergence needs samples, got {len(x)} and {len(y)}")
    x, y = x.detach().to(torch.float64), y.detach().to(torch.float64)
    between, left, right = (torch.cdist(a, b).square() / 2 for a, b in ((x, y), (x, x), (y, y)))
    largest = max(float(between.max()), blur**2)
    schedule = [largest * 0.25**k for k in range(math.ceil(math.log(largest / blur**2, 4)))] + [blur**2]
    f, g = between.new_zeros(len(x)), between.new_zeros(len(y))
    f_self, g_self = f.clone(), g.clone()
    for epsilon in schedule[:-1]:
        f, g, f_self, g_self = _updated(between, left, right, f, g, f_self, g_self, epsilon)
    for _ in range(max_iterations):
        before = f, g, f_self, g_self
        f, g, f_self, g_self = _updated(between, left, right, *before, schedule[-1])
        change = max(float((a - b).abs().max()) for a, b in zip(before, (f, g, f_self, g_self), strict=True))
        if change <= rtol * largest:
            return (f - f_self).mean() + (g - g_self).mean()
    remedy = "take a larger blur, or more iterations"
    raise ConvergenceError("sinkhorn_divergence", change / largest, rtol, max_iterations, remedy)


def _updated(
    between: Tensor, left: Tensor, right: Tensor, f: Tensor, g: Tensor, f_self: Tensor, g_self: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Averages of old and new potentials, all four at once, which converges for the symmetric ones as well."""
    new_f = _soft_minimum(between, g, epsilon)
    new_g = _soft_minimum(between.mT, f, epsilon)
    new_left, new_right = _soft_minimum(left, f_self, epsilon), _soft_minimum(right, g_self, epsilon)
    return (f + new_f) / 2, (g + new_g) / 2, (f_self + new_left) / 2, (g_self + new_right) / 2


def _soft_minimum(cost: Tensor, potential: Tensor, epsilon: float) -> Tensor:
    exponent = (potential - cost) / epsilon - math.log(cost.shape[1])
    return -epsilon * torch.logsumexp(exponent, 1)
