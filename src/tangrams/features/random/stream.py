"""Random weights that are a function of (seed, row): any rows can be had without those before them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.features.random.couplings import Coupling, Drawn
from tangrams.operators.dense_rows import PANEL_BYTES
from tangrams.operators.sketches.base import block_generator

STRIP = 256
"""About how many rows come from one generator: part of the definition of every stream."""

_SEEDS = 256
"""Strips whose seeds come from one block of the random stream."""

_ELEMENTS = 1 << 20
"""How many entries of W are worked out at once, in float64."""

_CACHED = 1 << 18
"""Entries of fast products that are in hand at once: the working set stays in cache."""


class Weights(NamedTuple):
    """Some rows of W, and as many standard normal offsets.

    Attributes:
        W: the weight vectors.
        b: the offsets.
    """

    W: Float[Tensor, "width d"]
    b: Float[Tensor, "width"]


class WeightStream:
    """The rows of W, each N(0, I) and coupled with those of its group, and standard normal offsets b.

    Strips of whole groups have a generator each. Row i does not depend on how many rows there are, on the device or on
    which rows are asked for; all are kept in memory only while they fit
    :data:`~tangrams.operators.dense_rows.PANEL_BYTES`. What is kept of a coupling with a fast product is not W.

    Args:
        in_features: d.
        num_rows: how many rows there are.
        coupling: their joint law.
        seed: fixes every draw.
    """

    def __init__(self, in_features: int, num_rows: int, coupling: Coupling, seed: int) -> None:
        self.in_features, self.num_rows = in_features, num_rows
        self.coupling, self.seed = coupling, seed
        self.group = coupling.group_size(in_features)
        self._kept: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    @property
    def strip(self) -> int:
        """Rows per strip."""
        return max(1, STRIP // self.group) * self.group

    def rows(self, start: int, stop: int, like: Tensor) -> Weights:
        """The rows ``start … stop`` in the dtype and on the device of ``like``."""
        fits = self.num_rows * self.in_features * like.dtype.itemsize <= PANEL_BYTES
        if not fits:
            return self._dense(start, stop, like)
        W, b = self._keep("dense", like, lambda: self._dense(0, self.num_rows, like))
        return Weights(W[start:stop], b[start:stop])

    def project(self, x: Float[Tensor, "n d"], start: int, stop: int) -> tuple[Tensor, Tensor]:
        """``x Wᵀ`` for the rows ``start … stop``, and their offsets: ``(n, width)`` and ``(width,)``.

        Args:
            x: samples.
            start: first row.
            stop: one past the last.
        """
        if not self.coupling.is_fast:
            W, b = self.rows(start, stop, x)
            return x @ W.mT, b
        first, drawn, b = self._groups(start, stop, x)
        step = max(1, _CACHED // len(b))
        y = torch.cat([self.coupling.apply(part, drawn).flatten(1) for part in x.split(step)])
        return y[:, start - first : stop - first], b[start - first : stop - first]

    def _keep(self, kind: str, like: Tensor, make: Any) -> Any:
        key = kind, like.dtype, like.device
        if key not in self._kept:
            with torch.inference_mode(False):  # what is kept may meet autograd later
                self._kept = {key: make()}
        return self._kept[key]

    def _dense(self, start: int, stop: int, like: Tensor) -> Weights:
        W, b = like.new_empty(stop - start, self.in_features), like.new_empty(stop - start)
        chunk = self.strip * max(1, _ELEMENTS // (self.strip * self.in_features))
        first = start - start % self.strip
        while first < stop:
            drawn, offsets = self._draw(first, min(first + chunk, stop))
            low, high = max(start, first), min(stop, first + len(offsets))
            vectors = self.coupling.dense(self.in_features, drawn)
            W[low - start : high - start] = vectors[low - first : high - first].to(like)
            b[low - start : high - start] = offsets[low - first : high - first].to(like)
            first += len(offsets)
        return Weights(W, b)

    def _groups(self, start: int, stop: int, like: Tensor) -> tuple[int, Drawn, Tensor]:
        """The state of the groups that hold rows ``start … stop``, the first row of them, and all their offsets."""

        def draw(low: int, high: int) -> tuple[Drawn, Tensor]:
            drawn, offsets = self._draw(low, high)
            return tuple(part.to(like) for part in drawn), offsets.to(like)

        if self.num_rows * like.dtype.itemsize * 8 > PANEL_BYTES:
            first = start - start % self.strip
            return first, *draw(first, stop)
        drawn, b = self._keep("groups", like, lambda: draw(0, self.num_rows))
        low, high = start // self.group, -(-stop // self.group)
        return low * self.group, tuple(part[low:high] for part in drawn), b[low * self.group : high * self.group]

    def _draw(self, start: int, stop: int) -> tuple[Drawn, Tensor]:
        """All strips that begin from ``start`` on, itself a multiple of :attr:`strip`, and before ``stop``."""
        parts, offsets = [], []
        for number in range(start // self.strip, -(-stop // self.strip)):
            block, within = divmod(number, _SEEDS)
            seeds = torch.randint(2**63 - 1, (_SEEDS,), generator=block_generator(self.seed, block))
            generator = torch.Generator().manual_seed(int(seeds[within]))
            parts.append(self.coupling.draw(self.in_features, self.strip // self.group, generator))
            offsets.append(torch.randn(self.strip, generator=generator, dtype=torch.float32))
        drawn = tuple(torch.cat(part) for part in zip(*parts, strict=True))
        return self.coupling.prepare(drawn), torch.cat(offsets)
