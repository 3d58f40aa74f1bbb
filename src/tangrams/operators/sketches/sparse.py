"""The sparse Johnson–Lindenstrauss transform: a few count sketches stacked."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.base import Sketch, block_generator, second_moment_embedding_size, stream_blocks
from tangrams.operators.sketches.folding import draw_shifts, draw_signs, fold_add, unfold_take


class SparseSketch(Sketch):
    r"""s entries ``±1/√s`` per column, one in each of s groups of ``k/s`` rows.

    Variance as of :class:`CountSketch`, ``(1 + ρ²) / k`` where s divides k, but made of s independent parts, so that
    its tail is that of s collisions at once; s times the cost. The block construction of Kane and Nelson, "Sparser
    Johnson–Lindenstrauss transforms" (2014), known as OSNAP in regression [032], and the stacked count sketches of
    ridge ensembles [024]; each group folded in blocks.

    Args:
        num_features: k.
        nonzeros: s, how many entries a column has.
        seed: fixes every draw.

    Shape:
        ``(n, p)`` → ``(n, k)``

    Raises:
        ValueError: if not ``1 ≤ nonzeros ≤ num_features``.
    """

    def __init__(self, num_features: int, *, nonzeros: int = 4, seed: int = 0) -> None:
        super().__init__(num_features, seed=seed)
        if not 1 <= nonzeros <= num_features:
            raise ValueError(f"SparseSketch needs 1 ≤ nonzeros ≤ num_features, got {nonzeros} and {num_features}")
        self.nonzeros = int(nonzeros)

    def _groups(self) -> list[slice]:
        borders = [g * self.num_features // self.nonzeros for g in range(self.nonzeros + 1)]
        return [slice(a, b) for a, b in pairwise(borders)]

    def _draw(self, block: int, low: int, high: int, like: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        # A generator for each group, so that no more signs are drawn than there are columns.
        seeds = torch.randint(2**63 - 1, (self.nonzeros,), generator=block_generator(self.seed, block)).tolist()
        for group, seed in zip(self._groups(), seeds, strict=True):
            generator = torch.Generator().manual_seed(seed)
            shifts = draw_shifts(group.stop - group.start, generator)
            signs = draw_signs(high, generator)[low:].to(dtype=like.dtype, device=like.device)
            yield group, signs * self.nonzeros**-0.5, shifts

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for number, low, high in stream_blocks(start, start + block.shape[1]):
            part, block = block[:, : high - low].to(out.dtype), block[:, high - low :]
            for group, signs, shifts in self._draw(number, low, high, out):
                fold_add(part, signs, shifts, low, out[:, group])

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        parts = []
        for number, low, high in stream_blocks(start, stop):
            total = u.new_zeros(u.shape[0], high - low)
            for group, signs, shifts in self._draw(number, low, high, u):
                total += unfold_take(u[:, group], signs, shifts, low)
            parts.append(total)
        return torch.cat([u[:, :0], *parts], 1)

    def variance(self, rho: float = 0.0) -> float:
        """``(1 + ρ²) s⁻² Σ_g 1/k_g`` over the groups, ``(1 + ρ²) / k`` where s divides k."""
        return (1 + rho**2) * sum(1 / (g.stop - g.start) for g in self._groups()) / self.nonzeros**2

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """By the second moment of the distortion, for k that s divides."""
        return second_moment_embedding_size(dimension, epsilon, delta)

    def describe(self) -> dict[str, Any]:
        """What this sketch is, as JSON data."""
        return {**super().describe(), "nonzeros": self.nonzeros}
