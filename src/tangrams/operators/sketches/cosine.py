"""The subsampled randomised cosine transform."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.cosine import cosine_transform, inverse_cosine_transform
from tangrams.operators.sketches.base import Sketch, block_generator, mixed_embedding_size, stream_blocks
from tangrams.operators.sketches.folding import draw_signs
from tangrams.operators.sketches.mixing import draw_rows, parity_signs, stream_width

_ROWS = 8
"""Rows that are transformed at once."""


class CosineSketch(Sketch):
    r"""``S = √(m/k) R C D``: random signs, an orthonormal cosine transform (DCT-II), k of its m rows, all different.

    m is the larger of p and k, without padding to a power of two: with k = p, S is orthogonal, and k near p costs no
    variance. ``Var⟨Sx, Sy⟩ ≤ (m/(m−1)) (1 − k/m) (3/2 + ρ²) ‖x‖² ‖y‖² / k``; the excess over a Hadamard transform comes
    from column c and its mirror image m − 1 − c, whose cosines share their squares, and is there only where x and y put
    their energy on such a pair. One FFT for a row, O(np log p).

    A transform of all columns does not come in blocks. Beyond :data:`BLOCK` columns C is ``H ⊗ C``: cosines within the
    blocks of the stream, signs of Hadamard's order across them, orthonormal still, so that a block meets only its own
    part (and the constant becomes 5/2). The sketch of ridge ensembles [024].

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    @property
    def _size(self) -> tuple[int, int]:
        return stream_width(max(self.in_features, self.num_features))

    @property
    def _square(self) -> float:
        return 1.5 if self._size[0] == 1 else 2.5

    def _rows(self, block: int, like: Tensor) -> tuple[Int64[Tensor, "k"], Float[Tensor, "k"]]:
        """The drawn rows within a block, and their signs and scale in it."""
        blocks, width = self._size
        rows = draw_rows(self.num_features, blocks * width, block_generator(self.seed, -1))
        outer = parity_signs((rows // width) & block, like)
        return (rows % width).to(like.device), outer * (width / self.num_features) ** 0.5

    def _signs(self, block: int, low: int, high: int, like: Tensor) -> Tensor:
        signs = draw_signs(high, block_generator(self.seed, block))[low:]
        return signs.to(dtype=like.dtype, device=like.device)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``; a piece of a block costs as much as all of it."""
        width = self._size[1]
        for number, low, high in stream_blocks(start, start + block.shape[1]):
            part, block = block[:, : high - low], block[:, high - low :]
            inner, outer = self._rows(number, out)
            signs = self._signs(number, low, high, out)
            for first in range(0, len(part), _ROWS):
                rows = part[first : first + _ROWS]
                padded = out.new_zeros(len(rows), width)
                padded[:, low:high] = rows * signs
                out[first : first + _ROWS].addcmul_(cosine_transform(padded)[:, inner], outer)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for number, low, high in stream_blocks(start, stop):
            inner, outer = self._rows(number, u)
            spread = u.new_zeros(u.shape[0], self._size[1]).index_add_(1, inner, u * outer)
            parts.append(inverse_cosine_transform(spread)[:, low:high] * self._signs(number, low, high, u))
        return torch.cat([u[:, :0], *parts], 1)

    @property
    def orthogonality(self) -> float:
        """p/m: S is a part of k rows of a rotation of m columns."""
        return self.in_features / math.prod(self._size)

    def variance(self, rho: float = 0.0) -> float:
        """``(m/(m−1)) (1 − k/m) (3/2 + ρ²) / k``, an upper bound, 5/2 beyond one block; 0 where S is orthogonal."""
        blocks, width = self._size
        k, m = self.num_features, blocks * width
        return (self._square + rho**2) / k * (m - k) / max(m - 1, 1)

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """As of :class:`HadamardSketch`, for entries as large as ``√(2/m)``."""
        blocks, width = self._size
        return mixed_embedding_size(dimension, blocks * width, 2.0, epsilon, delta, self._square)
