"""What the dense sketches share: columns of S drawn a strip at a time, used and forgotten."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sketches.base import BLOCK, Sketch, block_generator, stream_blocks

STRIP = 256
"""Columns of S that are drawn at once: part of the definition, since a normal stream is not the same cut elsewhere."""


class DenseSketch(Sketch):
    """S with independent entries, from one generator per strip of :data:`STRIP` columns.

    The strips' seeds are the stream of their block, so that any strip is reached without drawing those before it. A
    member writes :meth:`_strip`.
    """

    @abstractmethod
    def _strip(self, generator: torch.Generator) -> Tensor:
        """``(STRIP, k)`` entries with mean 0 and variance 1, the transpose of a strip of S."""

    def _strips(self, start: int, stop: int, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
        # (columns counted from ``start``, that part of Sᵀ)
        for number, low, high in stream_blocks(start, stop):
            seeds = torch.randint(2**63 - 1, (BLOCK // STRIP,), generator=block_generator(self.seed, number)).tolist()
            offset = number * BLOCK - start
            for strip in range(low // STRIP, -(-high // STRIP)):
                first, last = max(low, strip * STRIP), min(high, (strip + 1) * STRIP)
                entries = self._strip(torch.Generator().manual_seed(seeds[strip]))
                part = entries[first - strip * STRIP : last - strip * STRIP]
                yield slice(offset + first, offset + last), part.to(dtype=like.dtype, device=like.device)

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``."""
        for columns, part in self._strips(start, start + block.shape[1], out):
            out.addmm_(block[:, columns].to(out.dtype), part, alpha=self.num_features**-0.5)

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``."""
        out = u.new_empty(u.shape[0], stop - start)
        for columns, part in self._strips(start, stop, u):
            out[:, columns] = u @ part.mT
        return out * self.num_features**-0.5
