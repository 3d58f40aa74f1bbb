"""The best ridge, and how far the best model fits its training data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from tangrams.lens.eigenframework.risk import Risk, risk_at, solve_gamma
from tangrams.lens.eigenframework.structure import Eigenstructure

_GRID = 48


def optimal_ridge(task: Eigenstructure, n: int, *, k: float = math.inf) -> tuple[float, Risk]:
    """The ridge δ ≥ 0 with the smallest predicted test error, and its risk [006].

    Over the threshold γ, which needs no root: from where δ = 0 to where nothing is learned.

    Args:
        task: the spectrum and the target in it.
        n: number of samples.
        k: number of random features.

    Example:
        >>> from tangrams.lens.eigenframework import EigenTask
        >>> task = EigenTask.power_law(1.5, 1.5, 1500, noise_variance=0.5)
        >>> round(optimal_ridge(task, 128)[0], 1), round(optimal_ridge(task, 512)[1].test, 3)
        (0.5, 0.719)
    """
    least = solve_gamma(task, n, 0.0, k=k)[1]
    ridgeless = risk_at(task, n, least, k=k, exhausted=True)
    start = math.log(least) if least > 0 else math.log(task.trace / n) - 30
    # A grain above the ridgeless end, so that z stays below n and k.
    grid = np.linspace(start + 1e-6, math.log(1e4 * task.trace), _GRID)
    test = lambda s: risk_at(task, n, math.exp(s), k=k).test  # noqa: E731
    best = int(np.argmin([test(s) for s in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)])
    found: Any = minimize_scalar(test, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    gamma = math.exp(float(found.x))
    risk = risk_at(task, n, gamma, k=k)
    if ridgeless.test <= risk.test:
        return 0.0, ridgeless
    return (n - risk.degrees) * (1 - risk.degrees / k) * gamma, risk


def optimal_fitting_ratio(alpha: float, beta: float, relative_noise: float) -> float:
    r"""Training over test error of the best kernel ridge on a large sample of a power-law task [006].

    With λ_i = i^−α, v_i² = i^−β, noise :math:`σ^2 = σ_{rel}^2` times the noiseless ridgeless risk, and ρ = z/n, sums
    become integrals, and the risk is, but for a factor,

    .. math:: \frac{ρ^{1-β} + α σ_{rel}^2}{1 - (1 - 1/α) ρ}, \qquad \text{train/test} = (1 - ρ)^2 .

    Its minimum lies at ρ = 1, at interpolation, as long as :math:`σ_{rel}^2 ≤ (β - α) / (α (α - 1))`.

    Args:
        alpha: α > 1.
        beta: 1 < β < 2α + 1.
        relative_noise: σ²_rel ≥ 0.

    Raises:
        ValueError: for exponents outside, or negative noise.

    Example:
        >>> optimal_fitting_ratio(1.5, 2.0, 0.1), round(optimal_fitting_ratio(1.5, 2.0, 3.0), 3)
        (0.0, 0.141)
    """
    if not alpha > 1 or not 1 < beta < 2 * alpha + 1:
        raise ValueError(f"optimal_fitting_ratio needs α > 1 and 1 < β < 2α + 1, got {alpha} and {beta}")
    if not relative_noise >= 0:
        raise ValueError(f"optimal_fitting_ratio needs relative noise ≥ 0, got {relative_noise}")
    if alpha * (alpha - 1) * relative_noise <= beta - alpha:
        return 0.0
    risk = lambda r: (r ** (1 - beta) + alpha * relative_noise) / (1 - (1 - 1 / alpha) * r)  # noqa: E731
    best: Any = minimize_scalar(risk, bounds=(1e-9, 1.0), method="bounded", options={"xatol": 1e-12})
    return float((1 - best.x) ** 2)
