"""The Gaussian-pooled Hadamard sketch: dense, fast, and with a proof for coordinate-wise regression."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.hadamard import hadamard_transform
from tangrams.operators.sketches.base import BLOCK, Sketch, block_generator, stream_blocks
from tangrams.operators.sketches.folding import draw_signs
from tangrams.operators.sketches.mixing import aligned_stretch, parity_signs, power_of_two, stream_width

_ROWS = 8
"""Rows that are transformed at once."""


class PooledHadamardSketch(Sketch):
    r"""``S = B G Π H D``: signs, an orthonormal Hadamard transform, then Gaussian sums over k random groups of rows.

    All m transformed coordinates are used, m the least power of two not below p and k: a uniform permutation Π puts
    them into k groups as equal as they get, and each feature is the sum over its group with independent N(0, 1) weights
    G. Given H D the features are independent and Gaussian. Unbiased with
    ``Var ≤ ((1 + ρ²)/k + 2 (1 + 2ρ²)/m) ‖x‖² ‖y‖²``. The sketch of the follow-up to [032], "Hadamard flattening and
    Gaussian pooling", whose guarantee for every coordinate of a regression is proven at k = O(ε⁻² d log(d/δ)); that for
    the plain :class:`HadamardSketch` is not.

    O(np log p) up to :data:`BLOCK` columns. Beyond, H is cut with the stream and every block of columns meets all m
    rows, O(n m²/BLOCK), and Π permutes within blocks of rows, each of which is spread over all groups.

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    @property
    def _size(self) -> int:
        return power_of_two(max(self.in_features, self.num_features))

    def _groups(self, like: Tensor) -> Iterator[tuple[Int64[Tensor, "w"], Int64[Tensor, "w"], Float[Tensor, "w"]]]:
        # (rows of H, the feature that each goes into, its weight), a block of rows at a time
        m = self._size
        blocks, width = stream_width(m)
        for block in range(blocks):
            generator = block_generator(self.seed, -1 - block)
            position = torch.randperm(width, generator=generator) * blocks + block
            weights = torch.randn(width, generator=generator, dtype=torch.float64) * m**-0.5
            rows = torch.arange(block * width, (block + 1) * width)
            group = (position * self.num_features // m).to(like.device)
            yield rows, group, weights.to(dtype=like.dtype, device=like.device)

    def _part(self, block: int, low: int, high: int, like: Tensor) -> tuple[int, int, int, Tensor]:
        base, size = aligned_stretch(low, high)
        signs = draw_signs(high, block_generator(self.seed, block))[low:]
        return base, size, (block * BLOCK + base) // size, signs.to(dtype=like.dtype, device=like.device)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for number, low, high in stream_blocks(start, start + block.shape[1]):
            part, block = block[:, : high - low], block[:, high - low :]
            base, size, above, signs = self._part(number, low, high, out)
            groups = [
                ((rows % size).to(out.device), group, weights * parity_signs((rows // size) & above, out))
                for rows, group, weights in self._groups(out)
            ]
            for first in range(0, len(part), _ROWS):
                rows = part[first : first + _ROWS]
                padded = out.new_zeros(len(rows), size)
                padded[:, low - base : high - base] = rows * signs
                mixed = hadamard_transform(padded)
                for inner, group, weights in groups:
                    out[first : first + _ROWS].index_add_(1, group, mixed[:, inner] * weights)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for number, low, high in stream_blocks(start, stop):
            base, size, above, signs = self._part(number, low, high, u)
            spread = u.new_zeros(u.shape[0], size)
            for rows, group, weights in self._groups(u):
                outer = weights * parity_signs((rows // size) & above, u)
                spread.index_add_(1, (rows % size).to(u.device), u[:, group] * outer)
            parts.append(hadamard_transform(spread)[:, low - base : high - base] * signs)
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(1 + ρ²)/k + 2 (1 + 2ρ²)/m``, an upper bound."""
        return (1 + rho**2) / self.num_features + 2 * (1 + 2 * rho**2) / self._size
