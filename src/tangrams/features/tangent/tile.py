"""A tile of a Gram matrix while the layers add to it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

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
        scratch: at least as many numbers as ``out`` has, for products that are weighted.
    """

    def __init__(self, out: Tensor, r: int, folds: bool, symmetric: bool, scratch: Tensor) -> None:
        self.out, self.r, self.folds, self.symmetric = out, r, folds, symmetric
        self.scratch = scratch
        self.functions = 1 if folds else r
        self.height = out.shape[0] // max(self.functions, 1)
        self.width = out.shape[1] // max(self.functions, 1)
        self.lower_only = False

    def _pieces(self, features: int) -> Iterator[tuple[slice, slice]]:
        """Rows and columns to compute; cut at functions where there are several, else at samples.

        Yields:
            ``(rows, columns)``
        """
        rows, columns = self.out.shape
        if not self.symmetric or rows * columns * features < TRIANGLE_WORK:
            yield slice(0, rows), slice(0, columns)
            return
        self.lower_only = True
        unit = self.height if self.functions > 1 else 1
        count = rows // unit
        pieces = min(count, _MANY if rows >= _TALL else _FEW)
        edges = [count * i // pieces * unit for i in range(pieces + 1)]
        for start, stop in pairwise(edges):
            yield slice(start, stop), slice(0, stop)

    def _flat(self, factor: Tensor) -> Tensor:
        return factor.reshape(-1, factor.shape[-1])

    def add(self, left: Tensor, right: Tensor) -> None:
        """``⟨left, right⟩``: factors ``(r, P, f)`` and ``(r, Q, f)``."""
        if self.folds:
            for a, b in zip(left, right, strict=True):
                for rows, columns in self._pieces(a.shape[-1] * self.r):
                    self.out[rows, columns].addmm_(a[rows], b[columns].mT, alpha=1 / self.r)
            return
        left, right = self._flat(left), self._flat(right)
        for rows, columns in self._pieces(left.shape[-1]):
            self.out[rows, columns].addmm_(left[rows], right[columns].mT)

    def add_weighted(self, weight: Tensor, left: Tensor, right: Tensor) -> None:
        """``weight ⊙ ⟨left, right⟩``: weight ``(P, Q)`` is the same for every pair of functions."""
        if self.folds:
            product = self._scratch(self.height, self.width)
            torch.mm(left[0], right[0].mT, out=product)
            for a, b in zip(left[1:], right[1:], strict=True):
                product.addmm_(a, b.mT)
            self.out.addcmul_(product, weight, value=1 / self.r)
            return
        left, right = self._flat(left), self._flat(right)
        for rows, columns in self._pieces(left.shape[-1]):
            product = self._scratch(rows.stop - rows.start, columns.stop)
            torch.mm(left[rows], right[columns].mT, out=product)
            out = self.out[rows, columns]
            if self.functions == 1:
                out.addcmul_(product, weight[rows, columns])
                continue
            shape = (-1, self.height), (-1, self.width)
            out = out.unflatten(0, shape[0]).unflatten(2, shape[1])
            out.addcmul_(product.unflatten(0, shape[0]).unflatten(2, shape[1]), weight[:, None, :])

    def add_same_function(self, weight: Tensor) -> None:
        """``δ_cd weight``."""
        if self.folds:
            self.out += weight
            return
        for c in range(self.r):
            block = slice(c * self.height, (c + 1) * self.height), slice(c * self.width, (c + 1) * self.width)
            self.out[block] += weight

    def _scratch(self, rows: int, columns: int) -> Tensor:
        return self.scratch[: rows * columns].view(rows, columns)


def mirror(matrix: Tensor, block: int = 512) -> None:
    """Copy the lower triangle of a square matrix onto the upper, in place."""
    n = matrix.shape[0]
    for start in range(0, n, block):
        stop = min(start + block, n)
        matrix[:start, start:stop] = matrix[start:stop, :start].mT
        corner = matrix[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).mT)
