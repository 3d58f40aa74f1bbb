"""The Gram matrix of two feature matrices, as an operator."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.operators.dense_rows import accumulate_dtype, row_panels
from tangrams.operators.opaque import OpaqueOperator, fold, unfold
from tangrams.operators.rows import Rows


class GramMatrix(OpaqueOperator):
    """``K = Φ Ψᵀ``, what ``Φ @ Ψ.mT`` is.

    Products cost two products with rows and never form K; :meth:`to_dense` forms it by the source's fastest exact
    route. ``K[i, j]`` with rows and columns is the Gram matrix of those rows.

    Args:
        left: the rows of Φ.
        right: the rows of Ψ; the same object makes the matrix symmetric.

    Shape:
        ``(N, M)``
    """

    def __init__(self, *, left: Rows, right: Rows) -> None:
        super().__init__(left=left, right=right)
        self.left: Rows = left
        self.right: Rows = right

    @property
    def is_symmetric(self) -> bool:
        """Whether both sides are the same rows."""
        return self.left is self.right

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every answer."""
        return self.left.dtype

    @property
    def device(self) -> torch.device:
        """The device of every answer."""
        return self.left.device

    def _size(self) -> torch.Size:
        return torch.Size((self.left.shape[0], self.right.shape[0]))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        return unfold(self.left.matmul(self.right.t_matmul(fold(rhs))), rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._matmul(rhs)

    def _transpose_nonbatch(self) -> GramMatrix:
        return GramMatrix(left=self.right, right=self.left)

    def to_dense(self) -> Tensor:
        """``(N, M)``, by the fastest exact route of the rows; not kept."""
        return self.left.gram(self.right)

    def _diagonal(self) -> Tensor:
        if self.is_symmetric:
            return self.left.diag()
        return super()._diagonal()

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> GramMatrix:
        left = self.left if row is None else self.left.take(row)
        if self.is_symmetric and row is not None and col is not None and torch.equal(row, col):
            return GramMatrix(left=left, right=left)
        return GramMatrix(left=left, right=self.right if col is None else self.right.take(col))

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        wide = accumulate_dtype(self.dtype)
        out = torch.empty(row.shape, dtype=self.dtype, device=self.device)
        for start, stop, panel in row_panels(self.left.take(row)):
            other = self.right.take(col[start:stop]).dense()
            out[start:stop] = torch.linalg.vecdot(panel.to(wide), other.to(wide)).to(self.dtype)
        return out

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> GramMatrix:
        left = self.left.to(dtype, device)
        return GramMatrix(left=left, right=left if self.is_symmetric else self.right.to(dtype, device))

    def __repr__(self) -> str:
        return f"GramMatrix({tuple(self.shape)}, {self.dtype}, rows={type(self.left).__name__})"
