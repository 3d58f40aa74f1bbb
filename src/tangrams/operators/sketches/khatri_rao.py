"""The Khatri–Rao sketch: elementwise products of the projections of a weight's two sides."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.base import Column, Sketch, block_generator
from tangrams.operators.sketches.runs import column_runs, matrix_shape, rectangles, run_at

_OUTER_ELEMENTS = 1 << 22
"""How many entries are formed at once."""

_KEPT_BYTES = 1 << 26
"""How much of the projections a bound sketch keeps: drawing them costs more than multiplying a few rows with them."""


class KhatriRaoSketch(Sketch):
    r"""Products of two Gaussian projections: the sketch of ``g ⊗ a`` is ``√k (R g) ⊙ (R' a)`` [007].

    Each run of columns of shape ``(o, …)`` is read as a matrix (o, i); a row of S is ``r ⊗ r' / √k`` with standard
    normal r and r′ of its own, a vector's is normal. Runs add up. The gradient of a layer without positions is never
    formed: O(k (o + i)) per sample, by two matrix products. Unbiased with
    :math:`\mathrm{Var} \le (9 - ρ^2) \lVert x \rVert^2 \lVert y \rVert^2 / k`, since products of two normals have the
    fourth moment 9: four times that of a dense sketch for nearly parallel features of rank one, which attain it.

    The projections of a run, k × (o + i), are drawn once for all panels of rows and kept, up to 64 MiB in all; those
    beyond are drawn for every panel.

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    takes_outer = True

    def __init__(self, num_features: int, *, seed: int = 0) -> None:
        super().__init__(num_features, seed=seed)
        self._kept: dict[Any, _Sides] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # other columns or another seed, by copy.copy, have other projections

    def _sides(self, run: int, column: Column, like: Tensor) -> _Sides:
        key = run, like.dtype, like.device
        if key in self._kept:
            return self._kept[key]
        with torch.inference_mode(False):  # what is kept may meet autograd later
            sides = self._draw(run, column, like)
        if sum(part.nbytes for kept in (sides, *self._kept.values()) for part in kept) <= _KEPT_BYTES:
            self._kept[key] = sides
        return sides

    def _draw(self, run: int, column: Column, like: Tensor) -> _Sides:
        generator = block_generator(self.seed, run)
        o, i = matrix_shape(column)
        right = torch.randn(self.num_features, i, generator=generator, dtype=torch.float32) * self.num_features**-0.5
        left = torch.ones(self.num_features, 1, dtype=torch.float32)
        if len(column.shape) > 1:
            left = torch.randn(self.num_features, o, generator=generator, dtype=torch.float32)
        return _Sides(left.to(dtype=like.dtype, device=like.device), right.to(dtype=like.dtype, device=like.device))

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for run, column, low, high in column_runs(self.columns, start, start + block.shape[1]):
            sides = self._sides(run, column, out)
            part = block[:, column.start + low - start : column.start + high - start].to(out.dtype)
            for row, count, first, last in rectangles(low, high, matrix_shape(column)[1]):
                piece, part = part[:, : count * (last - first)], part[:, count * (last - first) :]
                weights = piece.reshape(-1, count, last - first)
                step = max(1, _OUTER_ELEMENTS // max(1, count * self.num_features))
                for n in range(0, len(weights), step):
                    half = weights[n : n + step] @ sides.right[:, first:last].mT  # (n, rows, k)
                    out[n : n + step] += (half * sides.left[:, row : row + count].mT).sum(1)

    def accumulate_outer(
        self, left: Float[Tensor, "n t o"], right: Float[Tensor, "n t i"], start: int, out: Float[Tensor, "n k"]
    ) -> None:
        """Add the sketch of ``vec Σ_t left_t ⊗ right_t`` from its two sides."""
        found = run_at(self.columns, start, (left.shape[2], right.shape[2]))
        if found is None:
            super().accumulate_outer(left, right, start, out)
            return
        sides = self._sides(*found, out)
        step = max(1, _OUTER_ELEMENTS // max(1, left.shape[1] * self.num_features))
        for n in range(0, len(left), step):
            some = slice(n, n + step)
            products = (left[some].to(out.dtype) @ sides.left.mT) * (right[some].to(out.dtype) @ sides.right.mT)
            out[some] += products.sum(1)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for run, column, low, high in column_runs(self.columns, start, stop):
            sides = self._sides(run, column, u)
            for row, count, first, last in rectangles(low, high, matrix_shape(column)[1]):
                step = max(1, _OUTER_ELEMENTS // max(1, count * self.num_features))
                scaled = (some[:, None] * sides.left[:, row : row + count].mT for some in u.split(step))  # (n, rows, k)
                parts.append(torch.cat([half @ sides.right[:, first:last] for half in scaled]).flatten(1))
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(9 − ρ²) / k``, an upper bound for every pair of features with cosine ρ.

        By Cauchy–Schwarz from ``E ⟨r, x⟩⁴ ≤ 9 ‖x‖⁴`` for each row: of a weight by conditioning on one side,
        ``3 E ‖Xᵀr‖⁴ ≤ 3 · 3 ‖X‖⁴``; of several runs because they are independent and 3 ≤ 9.
        """
        return (9 - rho**2) / self.num_features


class _Sides(NamedTuple):
    """The two projections of a run."""

    left: Float[Tensor, "k o"]
    right: Float[Tensor, "k i"]
