"""The tensor Hadamard sketch: a subsampled transform of outer products that never forms them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import pad

from tangrams.operators.hadamard import hadamard_transform
from tangrams.operators.sketches.base import Column, Sketch, block_generator
from tangrams.operators.sketches.folding import draw_signs
from tangrams.operators.sketches.mixing import aligned_stretch, draw_rows, parity_signs, power_of_two
from tangrams.operators.sketches.runs import column_runs, matrix_shape, rectangles, run_at

_ELEMENTS = 1 << 22
"""How many entries of transforms are held at once."""


class TensorHadamardSketch(Sketch):
    r"""``S = √(m/k) R (H D_o ⊗ H D_i)`` for each weight: the sketch of ``g ⊗ a`` is ``(H D_o g)_r (H D_i a)_r'``.

    Each run of columns of shape ``(o, …)`` is read as a matrix (o, i) of m = o' · i' padded entries, powers of two; k
    distinct pairs of transformed coordinates are drawn, given signs of their own, and added to those of the other runs.
    An outer product costs one transform for each side and O(k), a Kronecker design ``A₁ ⊗ A₂`` one for each factor
    (:meth:`project_kronecker`). Signs that are products cost variance, ``Var ≤ (7 + ρ²) ‖x‖² ‖y‖² / k``; two parallel
    outer products attain it. For tensor products in regression [032]; Ahle et al. (2020).

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    takes_outer = True

    def _draw(self, run: int, column: Column, like: Tensor) -> _Pairs:
        generator = block_generator(self.seed, run)
        o, i = matrix_shape(column)
        height, width = power_of_two(o), power_of_two(i)
        width = max(width, power_of_two(-(-self.num_features // height)))  # k pairs must be there to be drawn
        signs = [draw_signs(length, generator).to(dtype=like.dtype, device=like.device) for length in (o, i)]
        drawn = draw_rows(self.num_features, height * width, generator).to(like.device)
        scale = draw_signs(self.num_features, generator).to(dtype=like.dtype, device=like.device)
        scale = scale * self.num_features**-0.5
        return _Pairs(signs[0], signs[1], width, drawn // width, drawn % width, scale)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for run, column, low, high in column_runs(self.columns, start, start + block.shape[1]):
            pairs = self._draw(run, column, out)
            part = block[:, column.start + low - start : column.start + high - start].to(out.dtype)
            for row, count, first, last in rectangles(low, high, matrix_shape(column)[1]):
                piece, part = part[:, : count * (last - first)], part[:, count * (last - first) :]
                piece = piece.reshape(-1, count, last - first)
                base, size = aligned_stretch(row, row + count)
                step = max(1, _ELEMENTS // (size * pairs.width))
                scale = pairs.scale * parity_signs((pairs.outer // size) & (base // size), out)
                for at in range(0, len(piece), step):
                    signed = piece[at : at + step] * pairs.left[row : row + count, None] * pairs.right[first:last]
                    margins = (first, pairs.width - last, row - base, base + size - row - count)
                    mixed = hadamard_transform(hadamard_transform(pad(signed, margins)).mT)
                    out[at : at + step] += mixed[:, pairs.inner, pairs.outer % size] * scale

    def accumulate_outer(
        self, left: Float[Tensor, "n t o"], right: Float[Tensor, "n t i"], start: int, out: Float[Tensor, "n k"]
    ) -> None:
        """Add the sketch of ``vec Σ_t left_t ⊗ right_t``, side by side where that is less work than the products."""
        n, positions, rows = left.shape
        found = run_at(self.columns, start, (rows, right.shape[2]))
        if found is None or positions < 1 or (positions > 1 and positions * self.num_features > rows * right.shape[2]):
            super().accumulate_outer(left, right, start, out)
            return
        pairs = self._draw(*found, out)
        step = max(1, _ELEMENTS // (positions * max(self.num_features, pairs.width)))
        for first in range(0, n, step):
            some = slice(first, first + step)
            product = pairs.mix_left(left[some].to(out.dtype)) * pairs.mix_right(right[some].to(out.dtype))
            out[some] += product.sum(1) * pairs.scale

    def project_kronecker(self, left: Float[Tensor, "o a"], right: Float[Tensor, "i b"]) -> Float[Tensor, "k ab"]:
        """``S (A₁ ⊗ A₂)`` of a Kronecker design whose rows are the pairs (o, i), from the transformed factors alone.

        Args:
            left: A₁.
            right: A₂.

        Raises:
            ValueError: if the sketch is not bound to one run of shape ``(o, i)``.
        """
        shape = (left.shape[0], right.shape[0])
        found = run_at(self.columns, 0, shape)
        if found is None or self.in_features != shape[0] * shape[1]:
            raise ValueError(
                f"TensorHadamardSketch.project_kronecker needs a sketch bound to one run of shape {shape}, "
                f"got {[column.shape for column in self.columns or ()]}: bind((Column('rows', {shape}, 0, …),))"
            )
        pairs = self._draw(*found, left)
        product = pairs.mix_left(left.mT)[:, None] * pairs.mix_right(right.mT)[None]
        return (product * pairs.scale).flatten(0, 1).mT

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for run, column, low, high in column_runs(self.columns, start, stop):
            pairs = self._draw(run, column, u)
            for row, count, first, last in rectangles(low, high, matrix_shape(column)[1]):
                base, size = aligned_stretch(row, row + count)
                signed = u * pairs.scale * parity_signs((pairs.outer // size) & (base // size), u)
                spread = u.new_zeros(len(u), size * pairs.width)
                spread.index_add_(1, (pairs.outer % size) * pairs.width + pairs.inner, signed)
                mixed = hadamard_transform(spread.reshape(-1, size, pairs.width))[:, :, first:last]
                mixed = hadamard_transform(mixed.mT).mT[:, row - base : row - base + count]
                signs = pairs.left[row : row + count, None] * pairs.right[first:last]
                parts.append((mixed * signs).flatten(1))
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(7 + ρ²)/k``, an upper bound; ``(1 + ρ²)/k`` where every run is a vector; a lone run's by (m−k)/(m−1)."""
        shapes = [matrix_shape(column) for column in self.columns or ()]
        bound = (7 if any(min(shape) > 1 for shape in shapes) else 1) + rho**2
        if len(shapes) == 1:
            m = max(power_of_two(shapes[0][0]) * power_of_two(shapes[0][1]), power_of_two(self.num_features))
            bound *= (m - self.num_features) / max(m - 1, 1)
        return bound / self.num_features


class _Pairs(NamedTuple):
    """The signs of both sides of a run, and the pairs of transformed coordinates that are drawn."""

    left: Float[Tensor, "o"]
    right: Float[Tensor, "i"]
    width: int
    outer: Int64[Tensor, "k"]
    inner: Int64[Tensor, "k"]
    scale: Float[Tensor, "k"]

    def mix_left(self, x: Float[Tensor, "*batch o"]) -> Float[Tensor, "*batch k"]:
        """The drawn coordinates of ``H D_o x``."""
        height = power_of_two(len(self.left))
        return hadamard_transform(pad(x * self.left, (0, height - x.shape[-1])))[..., self.outer]

    def mix_right(self, x: Float[Tensor, "*batch i"]) -> Float[Tensor, "*batch k"]:
        """The drawn coordinates of ``H D_i x``."""
        return hadamard_transform(pad(x * self.right, (0, self.width - x.shape[-1])))[..., self.inner]
