"""The closed-form risk of ridge regression on a kernel or on random features."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from scipy.optimize import brentq

from tangrams.lens.eigenframework.structure import Eigenstructure

_DECADES = 400
"""How far a root is looked for, in factors of ten: float64's own range."""


@dataclass(frozen=True)
class Risk:
    """The average risk of ridge regression, by the eigenframework.

    Attributes:
        test: mean squared error on new samples, noise included.
        train: mean squared error on the training samples.
        kappa: κ, the effective ridge.
        gamma: γ ≥ κ, the threshold between what is learned and what is not; κ itself for a kernel.
        overfitting: E ≥ 1, how many times the error of an infinite sample at the same γ.
        degrees: z, the degrees of freedom in use.
        squared_degrees: q.
    """

    test: float
    train: float
    kappa: float
    gamma: float
    overfitting: float
    degrees: float
    squared_degrees: float

    @property
    def fitting_ratio(self) -> float:
        """Training over test error: 0 interpolates, 1 does not overfit."""
        return self.train / self.test if self.test > 0 else 0.0


def solve_gamma(task: Eigenstructure, n: int, delta: float, *, k: float = math.inf) -> tuple[float, float]:
    r"""``(κ, γ)``, the unique solution of the two equations of random-feature ridge regression [006].

    .. math:: \sum_i \frac{λ_i}{λ_i + γ} + \frac{δ}{κ} = n, \qquad \sum_i \frac{λ_i}{λ_i + γ} + \frac{k κ}{γ} = k

    The second gives κ = γ (1 − z/k), which leaves ``(n − z)(1 − z/k) γ = δ`` for γ alone; its left side grows
    wherever z(γ) < min(n, k). At δ = 0 the limit: z(γ) = min(n, k), or γ = 0 where the spectrum has no more degrees.

    Args:
        task: the spectrum.
        n: number of samples.
        delta: δ ≥ 0 in K + δI, not multiplied by n.
        k: number of random features; infinitely many are the kernel itself, with γ = κ.

    Raises:
        ValueError: if n or k is below one, or δ is negative.
    """
    if not n >= 1:
        raise ValueError(f"the eigenframework needs n ≥ 1 samples, got {n}")
    if not k >= 1:
        raise ValueError(f"the eigenframework needs k ≥ 1 features, got {k}")
    if not 0 <= delta < math.inf:
        raise ValueError(f"the eigenframework needs a ridge δ ≥ 0, got {delta}")
    most = min(n, k)
    if delta == 0:
        gamma = 0.0 if task.rank <= most else _root(lambda g: most - task.degrees(g)[0], task.trace / most)
        return (gamma * (1 - most / k) if gamma > 0 else 0.0), gamma

    def excess(gamma: float) -> float:
        z = task.degrees(gamma)[0]
        left = (n - z) * (1 - z / k) * gamma
        return math.log(left / delta) if z < most and left > 0 else -math.inf

    gamma = _root(lambda g: max(excess(g), -1e3), (task.trace + delta) / most)
    z = task.degrees(gamma)[0]
    return (delta / (n - z) if k < n else gamma * (1 - z / k)), gamma  # whichever does not cancel


def ridge_risk(task: Eigenstructure, n: int, delta: float, *, k: float = math.inf) -> Risk:
    r"""The omniscient risk estimate of ridge regression with n samples, on a kernel or on k random features [006].

    With γ of :func:`solve_gamma` and z, q, b₁, b₂ of the task there,

    .. math::
        E = \Bigl(1 - \frac{q (k - 2z) + z^2}{n (k - q)}\Bigr)^{-1}, \qquad
        \text{test} = E \Bigl(b_1 - \frac{k - z}{k - q} (b_1 - b_2)\Bigr), \qquad
        \text{train} = \Bigl(\frac{δ}{n κ}\Bigr)^2 \text{test}

    for the predictor ``K̂(x, X) (K̂(X, X) + δI)⁻¹ y`` with ``K̂ = ΦΦᵀ / k``. At k = ∞ that is kernel ridge regression:
    E = n / (n − q) and test = E b₂. It assumes universality: features act as Gaussian ones of their covariance.

    Args:
        task: the spectrum and the target in it.
        n: number of samples.
        delta: δ ≥ 0.
        k: number of random features.

    Returns:
        The risk. At the pole of double descent (δ = 0 and n = k, or n the rank of a noisy task) it is infinite.

    Example:
        >>> from tangrams.lens.eigenframework import EigenTask
        >>> round(ridge_risk(EigenTask.power_law(1.5, 1.5, 1500, noise_variance=0.5), 128, 1.0).test, 3)
        0.923
    """
    kappa, gamma = solve_gamma(task, n, delta, k=k)
    return replace(risk_at(task, n, gamma, k=k, exhausted=bool(delta == 0)), kappa=kappa)


def risk_at(task: Eigenstructure, n: int, gamma: float, *, k: float = math.inf, exhausted: bool = False) -> Risk:
    """The risk at a threshold γ, whichever ridge leads there: ``δ = (n − z)(1 − z/k) γ``.

    Args:
        task: the spectrum and the target in it.
        n: number of samples.
        gamma: γ.
        k: number of random features.
        exhausted: whether γ is where δ = 0, so that z = min(n, k, rank) without rounding.
    """
    z, q = task.degrees(gamma)
    if exhausted:
        z = min(n, k, task.rank)
    first, second = task.errors(gamma)
    spare = 1 - q / k
    bias = first - (1 - z / k) / spare * (first - second) if spare > 0 else first
    ratio = (q * (1 - 2 * z / k) + z**2 / k) / (n * spare) if spare > 0 else 1.0
    if ratio < 1 - 1e-12:
        overfitting = 1 / (1 - ratio)
        test = overfitting * bias
    else:
        overfitting = math.inf
        test = math.inf if bias > 0 else 0.0
    fitted = 1 - z / n
    train = fitted**2 * test if fitted > 0 else 0.0
    return Risk(test, train, gamma * (1 - z / k), gamma, overfitting, z, q)


def _root(rising: Callable[[float], float], start: float) -> float:
    """Where a function of a positive number that rises from below zero to above crosses it, to full precision."""
    f = lambda s: rising(math.exp(s))  # noqa: E731
    low = high = math.log(start)
    step = 1.0
    while f(high) <= 0 and high - math.log(start) < _DECADES:
        low, high, step = high, high + step, 2 * step
    step = 1.0
    while f(low) > 0 and math.log(start) - low < _DECADES:
        high, low, step = low, low - step, 2 * step
    crossing: Any = brentq(f, low, high, xtol=1e-14, maxiter=500)
    return math.exp(crossing)
