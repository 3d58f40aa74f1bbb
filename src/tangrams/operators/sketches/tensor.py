"""TensorSketch: a count sketch of outer products that never forms them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int64
from torch import Tensor

from tangrams.operators.sketches.base import Column, Sketch, block_generator
from tangrams.operators.sketches.folding import draw_signs
from tangrams.operators.sketches.runs import column_runs, matrix_shape, run_at

_SPECTRUM_ELEMENTS = 1 << 22
"""How many entries of spectra are held at once."""


class TensorSketch(Sketch):
    r"""A count sketch whose row and sign of the entry ``(o, i)`` of a weight are sums and products over its axes.

    Each run of columns of shape ``(o, …)`` is read as a matrix (o, i). With independent hashes h and signs s of the two
    axes, ``S[(h₁(o) + h₂(i)) mod k, (o, i)] = s₁(o) s₂(i)``. The sketch of ``g ⊗ a`` is then the circular convolution
    of two small count sketches, ``irfft(rfft(S₁ g) · rfft(S₂ a))``: O(o + i + k log k) for a layer without positions.
    Unbiased; the shared hashes cost variance, ``Var ≤ ((5 + ρ²)/k + 4/k²) ‖x‖² ‖y‖²``: three times that of dense signs
    for gradients of rank one that are nearly parallel, which attain it. Pham and Pagh (2013).

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    takes_outer = True

    def _draw(self, run: int, column: Column) -> tuple[_Axis, _Axis]:
        generator = block_generator(self.seed, run)
        rows, width = matrix_shape(column)
        return _Axis.draw(rows, self.num_features, generator), _Axis.draw(width, self.num_features, generator)

    def _entries(self, start: int, stop: int, like: Tensor) -> Iterator[tuple[slice, Int64[Tensor, "w"], Tensor]]:
        # (columns counted from ``start``, where each of them goes, its sign), a piece of a run at a time
        for run, column, low, high in column_runs(self.columns, start, stop):
            left, right = self._draw(run, column)
            index = torch.arange(low, high)
            o, i = index // len(right.hashes), index % len(right.hashes)
            where = (left.hashes[o] + right.hashes[i]) % self.num_features
            signs = (left.signs[o] * right.signs[i]).to(dtype=like.dtype, device=like.device)
            offset = column.start - start
            yield slice(offset + low, offset + high), where.to(like.device), signs

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for columns, where, signs in self._entries(start, start + block.shape[1], out):
            out.index_add_(1, where, block[:, columns].to(out.dtype) * signs)

    def accumulate_outer(
        self, left: Float[Tensor, "n t o"], right: Float[Tensor, "n t i"], start: int, out: Float[Tensor, "n k"]
    ) -> None:
        """Add the sketch of ``vec Σ_t left_t ⊗ right_t``, by FFT where that is less work than the products."""
        n, positions, rows = left.shape
        found = run_at(self.columns, start, (rows, right.shape[2]))
        if found is None or positions < 1 or (positions > 1 and positions * self.num_features > rows * right.shape[2]):
            super().accumulate_outer(left, right, start, out)
            return
        left_axis, right_axis = self._draw(*found)
        step = max(1, _SPECTRUM_ELEMENTS // (positions * self.num_features))
        for first in range(0, n, step):
            some = slice(first, first + step)
            spectrum = left_axis.spectrum(left[some].to(out.dtype), self.num_features)
            spectrum *= right_axis.spectrum(right[some].to(out.dtype), self.num_features)
            out[some] += torch.fft.irfft(spectrum.sum(1), n=self.num_features)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = [u[:, where] * signs for _, where, signs in self._entries(start, stop, u)]
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(5 + ρ²)/k + 4/k²``, an upper bound for every pair of features with cosine ρ.

        Pairs of entries in one row of a weight collide with the row's signs in common, and so do pairs in one column:
        each adds at most 2/k. Pairs that differ in both add (1 + ρ²)/k, and 4/k² from the exchange of their indices.
        """
        return (5 + rho**2) / self.num_features + 4 / self.num_features**2


class _Axis(NamedTuple):
    """Hashes and signs of one axis of a run."""

    hashes: Int64[Tensor, "length"]
    signs: Tensor

    @classmethod
    def draw(cls, length: int, num_features: int, generator: torch.Generator) -> _Axis:
        hashes = torch.randint(0, num_features, (length,), generator=generator)
        return cls(hashes, draw_signs(length, generator))

    def spectrum(self, x: Float[Tensor, "n t length"], num_features: int) -> Complex[Tensor, "n t f"]:
        """Fourier transform of the count sketch of the last axis."""
        signed = x * self.signs.to(dtype=x.dtype, device=x.device)
        sketched = x.new_zeros(*x.shape[:2], num_features)
        return torch.fft.rfft(sketched.index_add_(2, self.hashes.to(x.device), signed))
