"""The orthogonal sketch: rows of a random rotation."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.dense import STRIP, DenseSketch


class OrthogonalSketch(DenseSketch):
    r"""``√(p/k)`` times k rows of a rotation, uniform over all of them; the identity where k ≥ p.

    With G Gaussian, the rows of ``(G Gᵀ)^{-½} G`` are orthonormal and, as G Q has the law of G for every rotation Q,
    uniform. So only G's strips and a (k, k) matrix are ever held, and the sketch streams like a Gaussian one after one
    more pass over the draws, O(pk²), kept for the sizes used last. Its variance is exact and the same for every pair,
    ``Var = (p − k)/(k (p + 2)) · (2ρ² + (1 − ρ²) p/(p − 1)) ‖x‖² ‖y‖²``: below the Gaussian one, and the more so the
    nearer k comes to p. Asymptotically free, as ridge ensembles need it [024].

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    def _strip(self, generator: torch.Generator) -> Tensor:
        return torch.randn(STRIP, self.num_features, generator=generator, dtype=torch.float32)

    def _whitener(self, like: Tensor) -> Float[Tensor, "k k"]:
        return _whitener(self.seed, self.num_features, self.in_features).to(dtype=like.dtype, device=like.device)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        if self.num_features >= self.in_features:
            out[:, start : start + block.shape[1]] += block
            return
        gaussian = torch.zeros_like(out)
        super().accumulate(block, start, gaussian)
        out += gaussian @ self._whitener(out)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        if self.num_features >= self.in_features:
            return u[:, start:stop].clone()
        return super().lift_block(u @ self._whitener(u), start, stop)

    @property
    def orthogonality(self) -> float:
        """p/m: S is a part of k rows of a rotation of m columns."""
        return self.in_features / max(self.in_features, self.num_features)

    def variance(self, rho: float = 0.0) -> float:
        """``(p − k)/(k (p + 2)) · (2ρ² + (1 − ρ²) p/(p − 1))``, exact; 0 where k ≥ p."""
        k, p = self.num_features, self.in_features
        if k >= p:
            return 0.0
        return (p - k) / (k * (p + 2)) * (2 * rho**2 + (1 - rho**2) * p / (p - 1))


@lru_cache(maxsize=8)
def _whitener(seed: int, num_features: int, in_features: int) -> Float[Tensor, "k k"]:
    """``√p (Z Zᵀ)^{-½}`` in float64, Z = √k times the rows that :class:`DenseSketch` multiplies with."""
    sketch = OrthogonalSketch(num_features, seed=seed)
    gram = torch.zeros(num_features, num_features, dtype=torch.float64)
    for _, part in sketch._strips(0, in_features, gram):
        gram.addmm_(part.mT, part)
    eigenvalues, U = torch.linalg.eigh(gram)
    return (U * (in_features / eigenvalues).sqrt()) @ U.mT
