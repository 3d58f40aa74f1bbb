"""The subsampled randomised Hadamard transform."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.hadamard import hadamard_transform
from tangrams.operators.sketches.base import BLOCK, Sketch, block_generator, mixed_embedding_size, stream_blocks
from tangrams.operators.sketches.folding import draw_signs
from tangrams.operators.sketches.mixing import aligned_stretch, draw_rows, parity_signs, power_of_two

_ROWS = 8
"""Rows that are transformed at once: the working set stays in cache."""


class HadamardSketch(Sketch):
    r"""``S = √(m/k) R H D``: random signs, an orthonormal Hadamard transform, k of its m rows without replacement.

    m is the least power of two not below p and k. ``⟨Sx, Sy⟩`` is unbiased with
    ``Var ≤ (m/(m−1)) (1 − k/m) (1 + ρ²) ‖x‖² ‖y‖² / k``; with k = m, S is orthogonal. O(np log p), whatever k. A block
    of the stream meets only its own part of H, ``H_rc = (−1)^popcount(r_hi & c_hi) (−1)^popcount(r_lo & c_lo)``, so
    that p is never padded whole. Ailon and Chazelle (2009), Tropp (2011); on the rows of a regression [032], where rows
    are drawn with replacement and the variance lacks the factor ``1 − k/m``.

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    @property
    def _size(self) -> int:
        return power_of_two(max(self.in_features, self.num_features))

    def _rows(self) -> Int64[Tensor, "k"]:
        """Draw k distinct rows of m, from the stream before the first block."""
        return draw_rows(self.num_features, self._size, block_generator(self.seed, -1))

    def _part(self, block: int, low: int, high: int, like: Tensor) -> tuple[int, int, Tensor, Tensor, Tensor]:
        """The smallest aligned power-of-two stretch around ``low … high``, and how the rows of S meet it."""
        base, size = aligned_stretch(low, high)
        rows = self._rows()
        outer = parity_signs((rows // size) & ((block * BLOCK + base) // size), like)
        signs = draw_signs(high, block_generator(self.seed, block))[low:]
        scale = self.num_features**-0.5  # √(m/k) times the 1/√m of an orthonormal H
        return (
            base,
            size,
            (rows % size).to(like.device),
            outer * scale,
            signs.to(dtype=like.dtype, device=like.device),
        )

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for number, low, high in stream_blocks(start, start + block.shape[1]):
            part, block = block[:, : high - low], block[:, high - low :]
            base, size, inner, outer, signs = self._part(number, low, high, out)
            for first in range(0, len(part), _ROWS):
                rows = part[first : first + _ROWS]
                padded = out.new_zeros(len(rows), size)
                padded[:, low - base : high - base] = rows * signs
                out[first : first + _ROWS].addcmul_(hadamard_transform(padded)[:, inner], outer)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for number, low, high in stream_blocks(start, stop):
            base, size, inner, outer, signs = self._part(number, low, high, u)
            spread = u.new_zeros(u.shape[0], size).index_add_(1, inner, u * outer)
            parts.append(hadamard_transform(spread)[:, low - base : high - base] * signs)
        return torch.cat([u[:, :0], *parts], 1)

    @property
    def orthogonality(self) -> float:
        """p/m: S is a part of k rows of a rotation of m columns.

        Where p < m this is off by some per cent: columns of a Hadamard matrix are not free of its rows, as those of
        :class:`CosineSketch` are, which has p = m.
        """
        return self.in_features / self._size

    def variance(self, rho: float = 0.0) -> float:
        """``(m/(m−1)) (1 − k/m) (1 + ρ²) / k``, an upper bound; 0 where S is orthogonal."""
        k, m = self.num_features, self._size
        return (1 + rho**2) / k * (m - k) / max(m - 1, 1)

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """Tropp (2011): flattened leverages and a matrix Chernoff bound, with their constants."""
        return mixed_embedding_size(dimension, self._size, 1.0, epsilon, delta)
