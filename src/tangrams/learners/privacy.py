"""How much privacy noisy gradients cost."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from scipy.optimize import brentq
from scipy.special import log_ndtr

_LEAST_NOISE, _MOST_NOISE = 1e-3, 1e4


class PrivacyBudgetError(ValueError):
    """No amount of noise that is worth adding reaches the privacy asked for."""


class PrivacyAccountant(ABC):
    """What (ε, δ) a number of noisy sums of clipped gradients guarantees to each sample, when added or removed."""

    @abstractmethod
    def epsilon(self, noise_multiplier: float, steps: int, delta: float) -> float:
        """ε at δ of so many steps.

        Args:
            noise_multiplier: the noise's standard deviation over the clipping norm.
            steps: noisy sums that were published.
            delta: δ.
        """

    def noise_multiplier(self, epsilon: float, steps: int, delta: float) -> float:
        """The least noise that guarantees (ε, δ), or a thousandth of the clipping norm where that is too much.

        Args:
            epsilon: ε.
            steps: noisy sums that will be published.
            delta: δ.

        Raises:
            PrivacyBudgetError: if it is out of reach.
        """
        if not epsilon > 0 or not 0 < delta < 1 or steps < 1:
            raise PrivacyBudgetError(
                f"privacy needs ε > 0, 0 < δ < 1 and a step at least, got ε = {epsilon}, δ = {delta}, {steps} steps"
            )
        reached = self.epsilon(_MOST_NOISE, steps, delta)
        if reached > epsilon:
            raise PrivacyBudgetError(
                f"{steps} steps cannot be ({epsilon}, {delta})-private with noise up to {_MOST_NOISE:g} times the "
                f"clipping norm (ε = {reached:.3g}): take fewer steps"
            )
        low = 1.0
        while self.epsilon(low, steps, delta) < epsilon:
            if low < _LEAST_NOISE:
                return low
            low /= 2
        return _root(lambda sigma: self.epsilon(sigma, steps, delta) - epsilon, low, _MOST_NOISE)


class FullBatchAccountant(PrivacyAccountant):
    r"""Exact, where every step sees all samples.

    T Gaussian mechanisms of noise σ are one of noise :math:`σ / \sqrt T`, and with :math:`m = \sqrt T / σ`

    .. math:: δ(ε) = Φ(-ε/m + m/2) - e^ε Φ(-ε/m - m/2)

    (Balle and Wang, 2018).
    """

    def epsilon(self, noise_multiplier: float, steps: int, delta: float) -> float:
        """ε at δ."""
        if noise_multiplier == 0:
            return math.inf
        m = math.sqrt(steps) / noise_multiplier

        def excess(epsilon: float) -> float:
            second = epsilon + float(log_ndtr(-epsilon / m - m / 2))
            return math.exp(float(log_ndtr(-epsilon / m + m / 2))) - math.exp(second) - delta

        if excess(0.0) <= 0:
            return 0.0
        high = 1.0
        while excess(high) > 0:
            high *= 2
        return _root(excess, 0.0, high)


class SubsampledAccountant(PrivacyAccountant):
    """An upper bound by Rényi divergences, where every step draws each sample by a coin of its own; by opacus.

    Args:
        sample_rate: the coin's probability.

    Raises:
        ImportError: if opacus is not installed.
    """

    def __init__(self, sample_rate: float) -> None:
        try:
            from opacus.accountants import RDPAccountant  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError(
                "accounting of batches needs opacus: pip install 'tangrams[privacy]', or take batch_size=None, all "
                "samples in every step, whose accounting needs nothing"
            ) from error
        self.sample_rate = sample_rate
        self._make: Callable[[], RDPAccountant] = RDPAccountant

    def epsilon(self, noise_multiplier: float, steps: int, delta: float) -> float:
        """ε at δ."""
        if noise_multiplier == 0:
            return math.inf
        accountant = self._make()
        accountant.history = [(noise_multiplier, self.sample_rate, steps)]
        return float(accountant.get_epsilon(delta))


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    found: float = brentq(function, low, high, xtol=1e-10)  # pyright: ignore[reportAssignmentType]
    return found
