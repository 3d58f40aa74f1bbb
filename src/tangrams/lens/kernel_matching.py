"""How equal two kernels are: as functions of the angle, and in what they predict."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from tangrams.learners.base import HasGram
from tangrams.operators import ConvergenceError, solve

_GRID = 41
"""Length scales tried before the best is refined: five a decade over the usual bounds."""

_FAR = 1e100
"""The distance of a member without a posterior mean; finite, since the minimiser subtracts."""


@dataclass(frozen=True)
class PointwiseMatch:
    """The length scale that makes a Laplace kernel equal to another at each angle.

    Attributes:
        lengthscale: ℓ(c), in the order of c.
        smallest: of them.
        largest: of them; equal to the smallest where the kernels are one.
        best: the single ℓ with the least squared difference.
        residual: the largest difference that is left with it.
    """

    lengthscale: Tensor
    smallest: float
    largest: float
    best: float
    residual: float


def zonal(kernel: HasGram) -> Callable[[Tensor], Tensor]:
    """A rotation-invariant kernel as a function of the cosine between two points of the unit circle."""

    def profile(c: Tensor) -> Tensor:
        points = torch.stack([c, (1 - c**2).clamp_min(0).sqrt()], 1)
        return kernel.gram(points.new_tensor([[1.0, 0.0]]), points).detach()[0]

    return profile


def match_pointwise(kernel: Callable[[Tensor], Tensor], c: Float[Tensor, "m"]) -> PointwiseMatch:
    r"""The Laplace length scale that equals a kernel on the sphere, angle by angle [018].

    .. math:: ℓ(c) = -\frac{\sqrt{2 - 2c}}{\log k(c)}

    Two kernels with the same functions need not be equal: unless ℓ(c) is constant no length scale makes them so.

    Args:
        kernel: k as a function of cosines, as :func:`zonal` makes it, with k(1) = 1.
        c: cosines in [−1, 1).

    Raises:
        ValueError: if a cosine is outside [−1, 1), or a value of the kernel outside (0, 1).
    """
    c = c.to(torch.float64)
    if c.ndim != 1 or len(c) == 0 or not bool(((c >= -1) & (c < 1)).all()):
        raise ValueError("match_pointwise needs cosines in [−1, 1): at 1 every length scale fits")
    values = kernel(c).to(torch.float64)
    if not bool(((values > 0) & (values < 1)).all()):
        wrong = float(c[~((values > 0) & (values < 1))][0])
        raise ValueError(
            f"match_pointwise needs kernel values in (0, 1), which fails at c = {wrong}: normalise k(1) = 1"
        )
    distance = (2 - 2 * c).sqrt()
    lengthscale = -distance / values.log()
    low, high = float(lengthscale.min()), float(lengthscale.max())

    def loss(log_scale: float) -> float:
        return float(((-distance / math.exp(log_scale)).exp() - values).square().sum())

    best = low
    if high > low * (1 + 1e-12):
        found: Any = minimize_scalar(
            loss, bounds=(math.log(low), math.log(high)), method="bounded", options={"xatol": 1e-10}
        )
        best = math.exp(found.x)
    residual = float(((-distance / best).exp() - values).abs().max())
    return PointwiseMatch(lengthscale, low, high, best, residual)


@dataclass(frozen=True)
class MatchReport:
    """How close the best member of a family comes to a reference, in posterior means.

    Attributes:
        lengthscale: of that member.
        rmse: between the two means on the test samples.
        correlation: of the two means.
        at_bound: whether the length scale ran into a bound, so that a better one may lie beyond.
        reference_r2: coefficient of determination of the reference on the test targets, if those were given.
        matched_r2: of the member.
        reference_rmse: root mean squared error of the reference on the test targets.
        matched_rmse: of the member.
        residual_correlation: of the two models' errors.
    """

    lengthscale: float
    rmse: float
    correlation: float
    at_bound: bool
    reference_r2: float | None = None
    matched_r2: float | None = None
    reference_rmse: float | None = None
    matched_rmse: float | None = None
    residual_correlation: float | None = None


def posterior_mean(
    kernel: HasGram, X: Tensor, y: Float[Tensor, "n"], X_test: Tensor, *, ridge: float, rtol: float = 1e-6
) -> Float[Tensor, "m"]:
    """The mean ``k(X_test, X) (k(X, X) + ridge I)⁻¹ y`` of a Gaussian process.

    Args:
        kernel: k.
        X: training inputs.
        y: training targets.
        X_test: where the mean is wanted.
        ridge: the variance of the noise over that of the signal.
        rtol: of the solve, whose residual is checked.
    """
    K = kernel.gram(X).detach().to(torch.float64)
    noisy = K + ridge * torch.eye(len(K), dtype=K.dtype, device=K.device)
    return kernel.gram(X_test, X).detach().to(torch.float64) @ solve(noisy, y.to(torch.float64), rtol=rtol)


def match_posterior(
    reference: HasGram,
    family: Callable[[float], HasGram],
    X: Tensor,
    y: Float[Tensor, "n"],
    X_test: Tensor,
    *,
    ridge: float,
    y_test: Float[Tensor, "m"] | None = None,
    bounds: tuple[float, float] = (1e-4, 1e6),
) -> MatchReport:
    r"""The member of a family of kernels whose posterior mean is closest to a reference's [018].

    Both processes have the same variances of signal and noise, so that only the kernel's shape differs:

    .. math:: \min_ℓ \; \lVert m_{\text{ref}}(X_*) - m_ℓ(X_*) \rVert, \qquad
              m(X_*) = k(X_*, X) (k(X, X) + δ I)^{-1} y

    The length scale is searched on a logarithmic grid, and then refined around its best point. Members whose matrix
    is singular in float64 are passed over.

    Args:
        reference: the kernel to come close to.
        family: length scale → kernel, such as ``LaplaceKernel``.
        X: training inputs.
        y: training targets, ``(n,)``.
        X_test: where the means are compared.
        ridge: δ > 0, the variance of the noise over that of the signal.
        y_test: targets at ``X_test``, for the fit of both to the data.
        bounds: of the length scale.

    Raises:
        ValueError: if ``ridge`` or ``bounds`` are not positive and ordered, or the shapes do not fit.
    """
    low, high = bounds
    if not ridge > 0:
        raise ValueError(f"match_posterior needs ridge > 0, got {ridge}: add a jitter such as 1e-5 to noiseless data")
    if not 0 < low < high:
        raise ValueError(f"match_posterior needs 0 < bounds[0] < bounds[1], got {bounds}")
    if len(X) != len(y) or (y_test is not None and len(y_test) != len(X_test)):
        raise ValueError("match_posterior needs a target for every sample of X and of X_test")
    target = posterior_mean(reference, X, y, X_test, ridge=ridge)

    def mean(log_scale: float) -> Tensor:
        return posterior_mean(family(math.exp(log_scale)), X, y, X_test, ridge=ridge)

    def distance(log_scale: float) -> float:
        try:
            return _rms(mean(log_scale) - target)
        except ConvergenceError:  # too smooth a member for so small a ridge has no mean in float64
            return _FAR

    grid = np.linspace(math.log(low), math.log(high), _GRID)
    tried = [distance(point) for point in grid]
    best = int(np.argmin(tried))
    bracket = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    found: Any = minimize_scalar(distance, bounds=bracket, method="bounded", options={"xatol": 1e-8})
    log_scale = float(found.x) if found.fun <= tried[best] else float(grid[best])
    matched = mean(log_scale)
    return MatchReport(
        lengthscale=math.exp(log_scale),
        rmse=_rms(matched - target),
        correlation=_correlation(matched, target),
        at_bound=bool(min(log_scale - grid[0], grid[-1] - log_scale) < 1e-3),
        **({} if y_test is None else _fit_to_data(target, matched, y_test.to(torch.float64))),
    )


def _fit_to_data(reference: Tensor, matched: Tensor, y: Tensor) -> dict[str, float]:
    spread = _rms(y - y.mean())
    return {
        "reference_r2": 1 - (_rms(reference - y) / spread) ** 2,
        "matched_r2": 1 - (_rms(matched - y) / spread) ** 2,
        "reference_rmse": _rms(reference - y),
        "matched_rmse": _rms(matched - y),
        "residual_correlation": _correlation(reference - y, matched - y),
    }


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _correlation(left: Tensor, right: Tensor) -> float:
    """Pearson's, and NaN where one is constant."""
    left, right = left - left.mean(), right - right.mean()
    norms = left.norm() * right.norm()
    return float(left @ right / norms) if norms > 0 else math.nan
