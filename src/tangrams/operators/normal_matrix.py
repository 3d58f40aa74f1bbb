"""The normal matrix of a feature matrix, as an operator."""

from __future__ import annotations

import torch
from linear_operator.operators import LinearOperator, MatmulLinearOperator
from torch import Tensor

from tangrams.operators.dense_rows import ColumnRows, accumulate_dtype, row_panels
from tangrams.operators.opaque import OpaqueOperator, fold, unfold
from tangrams.operators.rows import Rows
from tangrams.operators.times_transposed import times_transposed


def normal_matrix(rows: Rows, dtype: torch.dtype | None = None) -> Tensor:
    """``Φᵀ Φ`` in one pass over the rows, panel by panel.

    Args:
        rows: the rows of Φ, ``(N, d)``.
        dtype: where it is summed and answered; at least float32 by default.

    Shape:
        ``(d, d)``
    """
    dtype = dtype or accumulate_dtype(rows.dtype)
    out = torch.zeros(rows.shape[1], rows.shape[1], dtype=dtype, device=rows.device)
    for _, _, panel in row_panels(rows):
        wide = panel.to(dtype).mT
        out = times_transposed(wide, wide, onto=out)
    return out


class NormalMatrix(OpaqueOperator):
    """``Φᵀ Φ``, what ``Φ.mT @ Φ`` is.

    Products cost two products with rows; :meth:`to_dense` reads the rows once.

    Args:
        rows: the rows of Φ.

    Shape:
        ``(d, d)``
    """

    def __init__(self, *, rows: Rows) -> None:
        super().__init__(rows=rows)
        self.rows: Rows = rows

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every answer."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """The device of every answer."""
        return self.rows.device

    def _size(self) -> torch.Size:
        return torch.Size((self.rows.shape[1], self.rows.shape[1]))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        return unfold(self.rows.t_matmul(self.rows.matmul(fold(rhs))), rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def _transpose_nonbatch(self) -> NormalMatrix:
        return self

    def to_dense(self) -> Tensor:
        """``(d, d)``; not kept."""
        return normal_matrix(self.rows).to(self.dtype)

    def _diagonal(self) -> Tensor:
        out = torch.zeros(self.shape[0], dtype=accumulate_dtype(self.dtype), device=self.device)
        for _, _, panel in row_panels(self.rows):
            out += panel.to(out.dtype).square().sum(0)
        return out.to(self.dtype)

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        from tangrams.operators.feature_matrix import FeatureMatrix

        def columns(index: Tensor | None) -> Rows:
            return self.rows if index is None else ColumnRows(self.rows, index)

        if row is not None and col is not None and torch.equal(row, col):
            return NormalMatrix(rows=columns(row))
        left, right = FeatureMatrix(rows=columns(row)), FeatureMatrix(rows=columns(col))
        return MatmulLinearOperator(left.mT, right)

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        out = torch.zeros(row.shape, dtype=accumulate_dtype(self.dtype), device=self.device)
        for _, _, panel in row_panels(self.rows):
            wide = panel.to(out.dtype)
            out += (wide[:, row] * wide[:, col]).sum(0)
        return out.to(self.dtype)

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> NormalMatrix:
        return NormalMatrix(rows=self.rows.to(dtype, device))

    def __repr__(self) -> str:
        return f"NormalMatrix({tuple(self.shape)}, {self.dtype}, rows={type(self.rows).__name__})"
