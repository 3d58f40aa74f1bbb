"""A tile of a Gram matrix while the layers add to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, pairwise

import torch
from torch import Tensor

from tangrams.operators import times_transposed

TRIANGLE_WORK = 20_000_000
"""Multiply-adds above which a symmetric product by blocks beats the whole by one call."""

_FEW, _MANY, _TALL = 5, 10, 800
"""Blocks of a triangle, and the rows from which on there are many: measured, 1.2 to 1.6 times the whole."""


_RUN = 1 << 17
"""Entries of a run: at 10⁸ of float32 the sum is right to 3e-7."""


def inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of two long vectors, in runs: ``torch.dot`` alone is off by a percent at 10⁸ entries of float32."""
    if len(a) <= _RUN:
        return torch.dot(a, b).double()
    runs = [torch.dot(x, y) for x, y in zip(a.split(_RUN), b.split(_RUN), strict=True)]
    return torch.stack(runs).double().sum()


class Tile:
    """``out[c, i, d, j] += …`` for samples i of the rows and j of the columns, functions c and d outermost.

    Function-major order makes every layer's share one matrix product. With ``folds`` a sample's functions share a row
    and the tile is their mean, ``(P, Q)``.

    Args:
        out: ``(r·P, r·Q)``, or ``(P, Q)`` if it folds; row stride arbitrary.
        r: functions per sample.
        folds: whether the functions are averaged over.
        symmetric: whether rows and columns are the same samples, so that the lower triangle is enough.
    """

    def __init__(self, out: Tensor, r: int, folds: bool, symmetric: bool) -> None:
        self.out, self.r, self.folds, self.symmetric = out, r, folds, symmetric
        self.functions = 1 if folds else r
        self.height = out.shape[0] // max(self.functions, 1)
        self.width = out.shape[1] // max(self.functions, 1)

    def _pieces(self, features: int, *factors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """``out`` and the factors, whole or piece by piece: cut at functions where there are several, else at samples.

        Args:
            features: that are summed over.
            factors: pairs of a left ``(rows, …)`` and a right one ``(columns, …)``.

        Yields:
            ``(out, left, right, …)``
        """
        rows, columns = self.out.shape
        if not self.symmetric or rows * columns * features < TRIANGLE_WORK:
            yield self.out, *factors
            return
        unit = self.height if self.functions > 1 else 1
        count = rows // unit
        pieces = min(count, _MANY if rows >= _TALL else _FEW)
        edges = [count * i // pieces * unit for i in range(pieces + 1)]
        for start, stop in pairwise(edges):
            spans = cycle((slice(start, stop), slice(stop)))
            yield self.out[start:stop, :stop], *(factor[span] for factor, span in zip(factors, spans, strict=False))

    def _flat(self, factor: Tensor) -> Tensor:
        return factor.reshape(-1, factor.shape[-1])

    def add(self, left: Tensor, right: Tensor) -> None:
        """``⟨left, right⟩``: factors ``(r, P, f)`` and ``(r, Q, f)``."""
        if self.folds:
            for a, b in zip(left, right, strict=True):
                for out, rows, columns in self._pieces(a.shape[-1] * self.r, a, b):
                    out.add_(times_transposed(rows, columns), alpha=1 / self.r)
            return
        for out, rows, columns in self._pieces(left.shape[-1], self._flat(left), self._flat(right)):
            out += times_transposed(rows, columns)

    def add_outer(self, a: Tensor, b: Tensor, bias: bool, left: Tensor, right: Tensor) -> None:
        """``(⟨a, b⟩ + bias) ⊙ ⟨left, right⟩``: a ``(P, i)`` and b ``(Q, i)`` are the same for every function."""
        if self.functions == 1 and not self.folds:
            features = a.shape[-1] + left.shape[-1]
            for out, g, h, mine, theirs in self._pieces(features, self._flat(left), self._flat(right), a, b):
                out.addcmul_(times_transposed(g, h), _product(mine, theirs, bias))
            return
        weight = _product(a, b, bias)
        if self.folds:
            product = times_transposed(left[0], right[0])
            for g, h in zip(left[1:], right[1:], strict=True):
                product = times_transposed(g, h, onto=product)
            self.out.addcmul_(product, weight, value=1 / self.r)
            return
        for out, g, h in self._pieces(left.shape[-1], self._flat(left), self._flat(right)):
            product = times_transposed(g, h)
            shape = (-1, self.height), (-1, self.width)
            out = out.unflatten(0, shape[0]).unflatten(2, shape[1])
            out.addcmul_(product.unflatten(0, shape[0]).unflatten(2, shape[1]), weight[:, None, :])

    def add_same_function(self, a: Tensor, b: Tensor, bias: bool) -> None:
        """``δ_cd (⟨a, b⟩ + bias)``."""
        weight = _product(a, b, bias)
        if self.folds:
            self.out += weight
            return
        for c in range(self.r):
            block = slice(c * self.height, (c + 1) * self.height), slice(c * self.width, (c + 1) * self.width)
            self.out[block] += weight


def _product(a: Tensor, b: Tensor, bias: bool) -> Tensor:
    product = times_transposed(a, b)
    return product.add_(1) if bias else product


def mirror(matrix: Tensor, block: int = 512) -> None:
    """Copy the lower triangle of a square matrix onto the upper, in place."""
    n = matrix.shape[0]
    for start in range(0, n, block):
        stop = min(start + block, n)
        matrix[:start, start:stop] = matrix[start:stop, :start].mT
        corner = matrix[start:stop, start:stop]
        corner.tril_().add_(corner.tril(-1).mT)
