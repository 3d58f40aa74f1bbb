"""The Rademacher sketch: dense random signs."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.operators.sketches.base import second_moment_embedding_size
from tangrams.operators.sketches.dense import STRIP, DenseSketch


class RademacherSketch(DenseSketch):
    r"""Independent entries ``±1/√k``.

    ``⟨Sx, Sy⟩`` is unbiased with ``Var = (‖x‖² ‖y‖² + ⟨x, y⟩² − 2 Σ x_i² y_i²) / k``, a little below the Gaussian one.
    O(npk) and the cost of the draws; a strip of S is in memory at a time. Achlioptas (2003).

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    def _strip(self, generator: torch.Generator) -> Tensor:
        return torch.randint(0, 2, (STRIP, self.num_features), generator=generator, dtype=torch.int8).mul_(2).sub_(1)

    def variance(self, rho: float = 0.0) -> float:
        """``(1 + ρ²) / k``, an upper bound, tight where no column holds much of the energy."""
        return (1 + rho**2) / self.num_features

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """By the second moment of the distortion."""
        return second_moment_embedding_size(dimension, epsilon, delta)
