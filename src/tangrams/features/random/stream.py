"""Random weights that are a function of (seed, row): any rows can be had without those before them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.features.random.couplings import Coupling
from tangrams.operators.dense_rows import PANEL_BYTES
from tangrams.operators.sketches.base import block_generator

STRIP = 256
"""About how many rows come from one generator: part of the definition of every stream."""

_SEEDS = 256
"""Strips whose seeds come from one block of the random stream."""


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
    :data:`~tangrams.operators.dense_rows.PANEL_BYTES`.

    Args:
        in_features: d.
        num_rows: how many rows there are.
        coupling: their joint law.
        seed: fixes every draw.
    """

    def __init__(self, in_features: int, num_rows: int, coupling: Coupling, seed: int) -> None:
        self.in_features, self.num_rows = in_features, num_rows
        self.coupling, self.seed = coupling, seed
        self._groups = max(1, STRIP // coupling.group_size(in_features))
        self._kept: dict[tuple[torch.dtype, torch.device], Weights] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}

    @property
    def strip(self) -> int:
        """Rows per strip."""
        return self._groups * self.coupling.group_size(self.in_features)

    def rows(self, start: int, stop: int, like: Tensor) -> Weights:
        """The rows ``start … stop`` in the dtype and on the device of ``like``."""
        key = like.dtype, like.device
        if key not in self._kept:
            if self.num_rows * self.in_features * like.dtype.itemsize > PANEL_BYTES:
                return self._draw(start, stop, like)
            with torch.inference_mode(False):  # what is kept may meet autograd later
                self._kept = {key: self._draw(0, self.num_rows, like)}
        W, b = self._kept[key]
        return Weights(W[start:stop], b[start:stop])

    def _draw(self, start: int, stop: int, like: Tensor) -> Weights:
        W, b = like.new_empty(stop - start, self.in_features), like.new_empty(stop - start)
        for number in range(start // self.strip, -(-stop // self.strip)):
            generator = self._generator(number)
            groups = self.coupling.draw(self.in_features, self._groups, generator)
            offsets = torch.randn(self.strip, generator=generator)
            first = number * self.strip
            low, high = max(start, first), min(stop, first + self.strip)
            W[low - start : high - start] = groups.flatten(0, 1)[low - first : high - first].to(like)
            b[low - start : high - start] = offsets[low - first : high - first].to(like)
        return Weights(W, b)

    def _generator(self, number: int) -> torch.Generator:
        block, within = divmod(number, _SEEDS)
        seeds = torch.randint(2**63 - 1, (_SEEDS,), generator=block_generator(self.seed, block))
        return torch.Generator().manual_seed(int(seeds[within]))
