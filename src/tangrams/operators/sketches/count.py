"""CountSketch, one signed entry per column, folded in blocks so that it runs at the speed of memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.base import Sketch, block_generator, second_moment_embedding_size, stream_blocks
from tangrams.operators.sketches.folding import draw_shifts, draw_signs, fold_add, unfold_take


class CountSketch(Sketch):
    r"""One ±1 per column, at a row that runs through a randomly shifted block of k columns.

    ``⟨Sx, Sy⟩`` is unbiased with ``Var = (1/k) Σ_{B≠B'} (‖x_B‖² ‖y_B'‖² + ⟨x_B, y_B⟩⟨x_B', y_B'⟩)`` over the blocks B,
    at most ``(1 + ρ²) ‖x‖² ‖y‖² / k``, as of dense signs, and far below where the energy sits in few blocks. Collisions
    of the columns of two blocks come together; where a bound with high probability is needed, take
    :class:`SparseSketch`. One pass over the features, O(np) whatever k. Charikar, Chen and Farach-Colton (2002) is the
    form with independent rows.

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``

    Example:
        >>> sketch = CountSketch(256, seed=0).bind(10_000)
        >>> sketch.project(torch.ones(2, 10_000)).shape, round(sketch.standard_error(), 4)
        (torch.Size([2, 256]), 0.0625)
    """

    def _draw(self, block: int, low: int, high: int, like: Tensor) -> tuple[Tensor, Tensor]:
        generator = block_generator(self.seed, block)
        shifts = draw_shifts(self.num_features, generator)
        return draw_signs(high, generator)[low:].to(dtype=like.dtype, device=like.device), shifts

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for number, low, high in stream_blocks(start, start + block.shape[1]):
            signs, shifts = self._draw(number, low, high, out)
            part, block = block[:, : high - low], block[:, high - low :]
            fold_add(part.to(out.dtype), signs, shifts, low, out)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for number, low, high in stream_blocks(start, stop):
            signs, shifts = self._draw(number, low, high, u)
            parts.append(unfold_take(u, signs, shifts, low))
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(1 + ρ²) / k``, an upper bound for every pair of features with cosine ρ."""
        return (1 + rho**2) / self.num_features

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """By the second moment of the distortion."""
        return second_moment_embedding_size(dimension, epsilon, delta)
