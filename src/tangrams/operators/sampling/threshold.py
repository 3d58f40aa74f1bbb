"""Threshold sampling: every row on its own, with a probability proportional to its weight."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tangrams.operators.sampling.rows import RowSampler
from tangrams.operators.sampling.weights import Matrix, squared_norms


class ThresholdSampler(RowSampler):
    r"""Keeps row i if ``u_i ≤ τ w_i``, with τ such that k rows are kept on average, ``Σ min(1, τ w_i) = k``.

    Rows are independent, so that the size varies, by less than √k, and the error of a product is known exactly,
    :meth:`product_variance`; it is at most ``(2/k) ‖A‖_F² ‖B‖_F²`` in the mean square with ``w_i = ‖A_i‖²`` [068]. With
    ``weights=norms`` it is end-biased sampling.

    Args:
        size: k.
        weights: what a row is worth.
        seed: of the hash.
    """

    def _choose(self, keys: np.ndarray, hashes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        tau = self.threshold(weights)
        return np.flatnonzero(hashes <= tau * weights), tau

    def threshold(self, weights: Float[np.ndarray, "n"]) -> float:
        """τ; infinite where there are no more than k positive weights.

        Args:
            weights: of all rows.
        """
        descending = np.sort(weights[weights > 0])[::-1]
        if len(descending) <= self.size:
            return float("inf")
        # With the j largest kept for sure, τ = (k − j) / (the sum of the rest); the first j at which the next row's
        # probability is not above one.
        rest = descending[::-1].cumsum()[::-1][: self.size]
        taus = (self.size - np.arange(self.size)) / rest
        return float(taus[np.argmax(taus * descending[: self.size] <= 1)])

    def product_variance(self, left: Matrix, right: Matrix) -> float:
        r"""``E ‖W − AᵀB‖_F² = Σ ‖A_i‖² ‖B_i‖² (1/p_i − 1)``, ``p_i = min(1, τ_A w_i^A, τ_B w_i^B)``, for equal keys.

        Args:
            left: A.
            right: B, with the rows of A.
        """
        energy = squared_norms(left) * squared_norms(right)
        kept = np.ones(len(energy))
        for matrix in (left, right):
            weights = np.asarray(self.weights(matrix), dtype=np.float64)
            tau = self.threshold(weights)
            kept = kept if np.isinf(tau) else np.minimum(kept, tau * weights)
        there = energy > 0
        return float((energy[there] * (1 / kept[there] - 1)).sum())
