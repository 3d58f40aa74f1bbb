"""Rows that count how often they are read, to check what an algorithm on a stored matrix costs."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.operators import Rows, Sketch


class CountingRows:
    """Rows that count how often they are read; what is taken from them counts with them.

    Args:
        rows: any source.
    """

    def __init__(self, rows: Rows, count: list[int] | None = None) -> None:
        self.rows = rows
        self._count = [0] if count is None else count

    @property
    def passes(self) -> float:
        """Rows read so far, in units of all rows."""
        return self._count[0] / max(1, self.rows.shape[0])

    def reset(self) -> None:
        """Count from zero again."""
        self._count[0] = 0

    def _reading(self) -> Rows:
        self._count[0] += self.rows.shape[0]
        return self.rows

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        return self.rows.shape

    @property
    def dtype(self) -> torch.dtype:
        """The source's."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """The source's."""
        return self.rows.device

    def matmul(self, v: Tensor) -> Tensor:
        """``Φ v``: one pass."""
        return self._reading().matmul(v)

    def t_matmul(self, u: Tensor) -> Tensor:
        """``Φᵀ u``: one pass."""
        return self._reading().t_matmul(u)

    def dense(self) -> Tensor:
        """All rows: one pass."""
        return self._reading().dense()

    def diag(self) -> Tensor:
        """Squared norms of the rows: one pass."""
        return self._reading().diag()

    def gram(self, other: Rows) -> Tensor:
        """``Φ Ψᵀ``: one pass over each side."""
        if other is self:
            return self._reading().gram(self.rows)
        return self._reading().gram(other._reading() if isinstance(other, CountingRows) else other)

    def take(self, index: Tensor) -> CountingRows:
        """Some rows, counted here."""
        return CountingRows(self.rows.take(index), self._count)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> CountingRows:
        """The rows in another dtype or on another device, counted here."""
        return CountingRows(self.rows.to(dtype, device), self._count)

    def project(self, sketch: Sketch) -> Tensor:
        """``Φ Sᵀ``: one pass."""
        return self._reading().project(sketch)
