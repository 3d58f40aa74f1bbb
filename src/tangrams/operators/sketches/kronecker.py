"""The Kronecker sketch: one small projection for each side of a weight."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.base import Column, Sketch, block_generator
from tangrams.operators.sketches.folding import draw_signs
from tangrams.operators.sketches.runs import column_runs, matrix_shape, rectangles, run_at


class KroneckerSketch(Sketch):
    r"""``P_g ⊗ P_a`` for each weight: the sketch of ``g ⊗ a`` is ``P_g g ⊗ P_a a``, with ``k_g k_a ≤ k``.

    Each run of columns of shape ``(o, …)`` is read as a matrix (o, i), projected from both sides with dense signs,
    shifted and signed on its own, and added to the others. A side not wider than √k is kept as it is.

    **Much less accurate than the other sketches at equal k.** It is unbiased, but its variance is that of its two
    small projections, ``Var ≤ (2/k_g + 2/k_a + 4/(k_g k_a) + (1 + ρ²)/k) ‖x‖² ‖y‖²`` with ``k_g ≈ k_a ≈ √k`` (no terms
    for a side kept), not ``(1 + ρ²)/k``: on one layer of real gradients 8–10 times the error. Take it for its cost,
    O(k_g o + k_a i) per sample without the gradient ever being formed, and look at :meth:`standard_error`; for layers
    without positions :class:`TensorSketch` is as cheap and far more accurate. Grosse et al. (2023) and Choe et al.
    (2024) project the gradients of language models this way.

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    takes_outer = True

    def _draw(self, run: int, column: Column, like: Tensor) -> _Pair:
        generator = block_generator(self.seed, run)
        k_g, k_a = self._sizes(column)
        o, i = matrix_shape(column)
        shift = int(torch.randint(0, self.num_features, (), generator=generator))
        signs = draw_signs(self.num_features, generator).to(dtype=like.dtype, device=like.device)
        return _Pair(_side(k_g, o, generator, like), _side(k_a, i, generator, like), shift, signs)

    def _sizes(self, column: Column) -> tuple[int, int]:
        """``(k_g, k_a)`` of a run: a narrow side whole, the rest for the other."""
        o, i = matrix_shape(column)
        root = math.isqrt(self.num_features)
        if o <= root:
            return o, min(i, self.num_features // max(o, 1))
        if i <= root:
            return min(o, self.num_features // max(i, 1)), i
        return root, min(i, self.num_features // root)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for run, column, low, high in column_runs(self.columns, start, start + block.shape[1]):
            pair = self._draw(run, column, out)
            part = block[:, column.start + low - start : column.start + high - start].to(out.dtype)
            for row, count, first, last in rectangles(low, high, matrix_shape(column)[1]):
                piece, part = part[:, : count * (last - first)], part[:, count * (last - first) :]
                weights = piece.reshape(-1, count, last - first)
                small = pair.left[:, row : row + count] @ (weights @ pair.right[:, first:last].mT)
                pair.scatter(small, out)

    def accumulate_outer(
        self, left: Float[Tensor, "n t o"], right: Float[Tensor, "n t i"], start: int, out: Float[Tensor, "n k"]
    ) -> None:
        """Add the sketch of ``vec Σ_t left_t ⊗ right_t`` from its two sides."""
        found = run_at(self.columns, start, (left.shape[2], right.shape[2]))
        if found is None:
            super().accumulate_outer(left, right, start, out)
            return
        pair = self._draw(*found, out)
        pair.scatter((left.to(out.dtype) @ pair.left.mT).mT @ (right.to(out.dtype) @ pair.right.mT), out)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for run, column, low, high in column_runs(self.columns, start, stop):
            pair = self._draw(run, column, u)
            small = pair.gather(u)
            for row, count, first, last in rectangles(low, high, matrix_shape(column)[1]):
                weights = pair.left[:, row : row + count].mT @ (small @ pair.right[:, first:last])
                parts.append(weights.flatten(1))
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """The bound above for the worst run that it is bound to, with ``(1 + ρ²)/k`` between runs."""
        return max(map(self.run_variance, self.columns or ()), default=0.0) + (1 + rho**2) / self.num_features

    def run_variance(self, column: Column) -> float:
        """``2/k_g + 2/k_a + 4/(k_g k_a)`` of one run, a bound for every pair; no terms for a side kept whole.

        Args:
            column: one of the runs.
        """
        o, i = matrix_shape(column)
        k_g, k_a = self._sizes(column)
        left = 0.0 if k_g >= o else 2 / k_g
        right = 0.0 if k_a >= i else 2 / k_a
        return left + right + left * right


class _Pair(NamedTuple):
    """The two projections of a run, and where it goes among the k features."""

    left: Float[Tensor, "kg o"]
    right: Float[Tensor, "ka i"]
    shift: int
    signs: Float[Tensor, "k"]

    def _where(self, out: Tensor) -> Tensor:
        size = self.left.shape[0] * self.right.shape[0]
        return (torch.arange(size, device=out.device) + self.shift) % len(self.signs)

    def scatter(self, small: Float[Tensor, "n kg ka"], out: Float[Tensor, "n k"]) -> None:
        where = self._where(out)
        out[:, where] += small.flatten(1) * self.signs[where]

    def gather(self, u: Float[Tensor, "n k"]) -> Float[Tensor, "n kg ka"]:
        where = self._where(u)
        return (u[:, where] * self.signs[where]).reshape(len(u), self.left.shape[0], self.right.shape[0])


def _side(size: int, length: int, generator: torch.Generator, like: Tensor) -> Tensor:
    if size >= length:
        return torch.eye(length, dtype=like.dtype, device=like.device)
    signs = draw_signs(size * length, generator).reshape(size, length)
    return signs.to(dtype=like.dtype, device=like.device) * size**-0.5
