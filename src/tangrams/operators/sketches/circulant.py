"""The circulant sketch: one random sequence, shifted from row to row."""

from __future__ import annotations

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from tangrams.operators.sketches.base import (
    BLOCK,
    Sketch,
    block_generator,
    second_moment_embedding_size,
    stream_blocks,
)
from tangrams.operators.sketches.folding import draw_signs

_ROWS = 8
"""Rows that are transformed at once."""


class CirculantSketch(Sketch):
    r"""``S = G D / √k`` with ``G_rc = g_{c − r}``: random signs, then k successive rows of a random circulant of signs.

    ``Var⟨Sx, Sy⟩ = (‖x‖² ‖y‖² + ⟨x, y⟩² − 2 Σ x_i² y_i²) / k``, exactly that of dense independent signs: the products
    of two different rows are uncorrelated. By FFT, O(np log p), whatever k; entries of one size as of a Hadamard
    transform, without a length to pad to. Random signs D are not for show: without them smooth features keep their
    correlations from row to row. The circulant sketch of [032], with successive rows in place of rows at random, so
    that none comes twice and a block of columns needs only its own stretch of g; Hinrichs and Vybíral (2011).

    Args:
        num_features: k.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``
    """

    def _draw(self, start: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Signs of the columns ``start … stop``, scaled, and the stretch of g that they meet."""
        signs, sequence = [], []
        for number, low, high in stream_blocks(start, stop + self.num_features - 1):
            generator = block_generator(self.seed, number)
            signs.append(draw_signs(BLOCK, generator)[low:high])
            sequence.append(draw_signs(BLOCK, generator)[low:high])
        scaled = torch.cat(signs)[: stop - start].to(dtype=like.dtype, device=like.device) * self.num_features**-0.5
        return scaled, torch.cat(sequence).to(dtype=like.dtype, device=like.device)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for number, low, high in stream_blocks(start, start + block.shape[1]):
            part, block = block[:, : high - low], block[:, high - low :]
            signs, sequence = self._draw(number * BLOCK + low, number * BLOCK + high, out)
            for first in range(0, len(part), _ROWS):
                rows = part[first : first + _ROWS].to(out.dtype) * signs
                out[first : first + _ROWS] += _correlate(rows, sequence).flip(1)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for number, low, high in stream_blocks(start, stop):
            signs, sequence = self._draw(number * BLOCK + low, number * BLOCK + high, u)
            parts.append(_correlate(u.flip(1), sequence) * signs)
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(1 + ρ²) / k``, an upper bound, tight where no column holds much of the energy."""
        return (1 + rho**2) / self.num_features

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """By the second moment of the distortion."""
        return second_moment_embedding_size(dimension, epsilon, delta)


def _correlate(x: Float[Tensor, "n width"], sequence: Float[Tensor, "length"]) -> Float[Tensor, "n lags"]:
    """``Σ_j x_j g_{j + l}`` for every lag at which the sequence covers x, by FFT."""
    lags = len(sequence) - x.shape[1] + 1
    if not len(x):  # no FFT takes an empty batch
        return x.new_zeros(0, lags)
    length = next_fast_len(len(sequence), real=True)
    spectrum = torch.fft.rfft(x, n=length).conj() * torch.fft.rfft(sequence, n=length)
    return torch.fft.irfft(spectrum, n=length)[:, :lags]
