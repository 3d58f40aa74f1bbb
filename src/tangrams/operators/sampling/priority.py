"""Priority sampling: the k rows of smallest hash over weight."""

from __future__ import annotations

import numpy as np

from tangrams.operators.sampling.rows import RowSampler


class PrioritySampler(RowSampler):
    r"""Keeps the k rows of smallest rank ``u_i / w_i``; τ is the rank that comes next.

    Given the ranks of the others, a row is kept with probability ``min(1, τ w_i)``, so that estimates are unbiased
    though rows are not independent. With ``w_i = ‖A_i‖²`` on both sides,
    ``‖W − AᵀB‖_F ≤ ε ‖A‖_F ‖B‖_F`` with probability 1 − δ from ``k = 2/(δ ε²) + 1`` rows [068].

    Args:
        size: k.
        weights: what a row is worth.
        seed: of the hash.

    Example:
        >>> import torch
        >>> sample = PrioritySampler(2).sample(torch.tensor([[1.0], [5.0], [0.0], [2.0]]))
        >>> len(sample), bool((sample.probabilities <= 1).all())
        (2, True)
    """

    def _choose(self, keys: np.ndarray, hashes: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
        ranks = hashes / weights
        order = np.lexsort((keys, ranks))
        return order[: self.size], float(ranks[order[self.size]])
