"""The Gaussian sketch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tangrams.operators.sketches.dense import STRIP, DenseSketch


class GaussianSketch(DenseSketch):
    r"""Independent normal entries of variance ``1/k``.

    ``⟨Sx, Sy⟩`` is unbiased with ``Var = (1 + ρ²) ‖x‖² ‖y‖² / k`` exactly, for every pair. O(npk) and the cost of the
    draws, which is the larger part up to a few hundred rows; a strip of S is in memory at a time.
    Johnson and Lindenstrauss (1984).

    Args:
        num_features: k.
        seed: fixes every draw; the stream is in float32 whatever the dtype of the features.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    def _strip(self, generator: torch.Generator) -> Tensor:
        return torch.randn(STRIP, self.num_features, generator=generator, dtype=torch.float32)

    def variance(self, rho: float = 0.0) -> float:
        """``(1 + ρ²) / k``, exact."""
        return (1 + rho**2) / self.num_features

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """Davidson and Szarek: singular values within ``1 ± (√d + √(2 log(2/δ)))/√k``, whose squares are ``1 ± ε``."""
        spread = math.sqrt(1 + epsilon) - 1
        return math.ceil(((math.sqrt(dimension) + math.sqrt(2 * math.log(2 / delta))) / spread) ** 2)
