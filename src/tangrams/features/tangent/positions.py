"""Routes that keep every position of a sample: pairs of positions of a linear layer, tokens of an embedding table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tangrams.features.tangent.consumers.base import Consumer
from tangrams.features.tangent.consumers.lookup import Lookup, add_tokens
from tangrams.features.tangent.groups import Allocate, Factors, Group, as_linear
from tangrams.features.tangent.tile import Tile
from tangrams.operators import times_transposed

_CHUNK = 1 << 22
"""Numbers in a temporary of the pair and token contractions."""


@dataclass(frozen=True)
class Pairs(Group):
    """A linear layer at few positions per sample: inner products over pairs of positions.

    Attributes:
        bias: whether the bias is in it.
        positions: T.
        in_features: i.
        out_features: o.
    """

    bias: bool
    positions: int
    in_features: int
    out_features: int
    route = "pairs"

    def floats(self, r: int) -> int:
        """``T (i + r o)``."""
        return self.positions * (self.in_features + r * self.out_features)

    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """A and G at every position."""
        t = self.positions
        return _PairFactors(self, allocate(n, t, self.in_features), allocate(r, n, t, self.out_features))


class _PairFactors(Factors):
    def __init__(self, group: Pairs, inputs: Tensor, gradients: Tensor) -> None:
        self.group, self.inputs, self.gradients = group, inputs, gradients

    def fill(self, function: int, where: slice, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        (k,) = self.group.consumers
        if function == 0:
            self.inputs[where] = as_linear(consumers[k]).inputs
        self.gradients[function, where] = gradients[k]

    def add(self, other: Factors, rows: slice, columns: slice, tile: Tile) -> None:
        assert isinstance(other, _PairFactors)  # both sides come from one recipe
        t = self.group.positions
        right, theirs = other.inputs[columns], other.gradients[:, columns]
        wide = right.shape[0]
        step = max(1, _CHUNK // max(1, t * t * wide))
        for start in range(rows.start, rows.stop, step):
            stop = min(start + step, rows.stop)
            inputs = times_transposed(self.inputs[start:stop].flatten(0, 1), right.flatten(0, 1))
            if self.group.bias:
                inputs += 1
            lo, hi = start - rows.start, stop - rows.start
            for c in range(tile.r):
                mine = self.gradients[c, start:stop].flatten(0, 1)
                for d in [c] if tile.folds else range(tile.r):
                    pairs = times_transposed(mine, theirs[d].flatten(0, 1)).mul_(inputs)
                    share = pairs.view(hi - lo, t, wide, t).sum((1, 3))
                    if tile.folds:
                        tile.out[lo:hi].add_(share, alpha=1 / tile.r)
                    else:
                        down, across = c * tile.height, d * tile.width
                        tile.out[down + lo : down + hi, across : across + wide] += share

    def norms(self, rows: slice) -> Tensor:
        inputs = self.inputs[rows] @ self.inputs[rows].mT + float(self.group.bias)
        return torch.stack([((g @ g.mT) * inputs).sum((1, 2)) for g in self.gradients[:, rows]])


@dataclass(frozen=True)
class Tokens(Group):
    """A large embedding table: gradients are kept by token, and gathered for the tokens that occur.

    Attributes:
        positions: T.
        features: d.
        vocabulary: V.
    """

    positions: int
    features: int
    vocabulary: int
    route = "tokens"

    def floats(self, r: int) -> int:
        """``T (2 + r d)``."""
        return self.positions * (2 + r * self.features)

    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """Tokens and G."""
        gradients = allocate(r, n, self.positions, self.features)
        tokens = torch.empty(n, self.positions, dtype=torch.int64, device=gradients.device)
        return _TokenFactors(self, tokens, gradients)


class _TokenFactors(Factors):
    def __init__(self, group: Tokens, tokens: Tensor, gradients: Tensor) -> None:
        self.group, self.tokens, self.gradients = group, tokens, gradients

    def fill(self, function: int, where: slice, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        (k,) = self.group.consumers
        lookup = consumers[k]
        assert isinstance(lookup, Lookup)  # the recipe put it here
        if function == 0:
            self.tokens[where] = lookup.tokens
        self.gradients[function, where] = gradients[k]

    def _gathered(self, rows: slice, used: Tensor, first: int, last: int) -> Tensor:
        tokens = torch.searchsorted(used, self.tokens[rows].contiguous())
        known = used[tokens.clamp_max(len(used) - 1)] == self.tokens[rows]
        tokens = torch.where(known & (tokens >= first) & (tokens < last), tokens - first, -1)
        gradients = self.gradients[:, rows]
        out = gradients.new_empty(gradients.shape[0], gradients.shape[1], (last - first) * self.group.features)
        for c, gradient in enumerate(gradients):
            add_tokens(tokens, gradient, last - first, out[c])
        return out

    def add(self, other: Factors, rows: slice, columns: slice, tile: Tile) -> None:
        assert isinstance(other, _TokenFactors)  # both sides come from one recipe
        mine, theirs = torch.unique(self.tokens[rows]), torch.unique(other.tokens[columns])
        used = mine[torch.isin(mine, theirs) & (mine >= 0)]
        height, width = self.gradients[:, rows].shape[1], other.gradients[:, columns].shape[1]
        step = max(1, _CHUNK // max(1, tile.r * (height + width) * self.group.features))
        same = other is self and rows == columns
        for first in range(0, len(used), step):
            last = min(first + step, len(used))
            left = self._gathered(rows, used, first, last)
            tile.add(left, left if same else other._gathered(columns, used, first, last))

    def norms(self, rows: slice) -> Tensor:
        tokens = self.tokens[rows]
        same = (tokens[:, :, None] == tokens[:, None, :]) & (tokens >= 0)[:, :, None]
        return torch.stack([((g @ g.mT) * same).sum((1, 2)) for g in self.gradients[:, rows]])
