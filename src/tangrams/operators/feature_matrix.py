"""The feature matrix: rows for samples, columns for features, over any source of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.operators.dense_rows import ColumnRows, DenseRows, row_panels
from tangrams.operators.gram_matrix import GramMatrix
from tangrams.operators.normal_matrix import NormalMatrix
from tangrams.operators.opaque import OpaqueOperator, fold, unfold
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.matrix import TransposedSketchMatrix


class FeatureMatrix(OpaqueOperator):
    r"""Φ, ``(N, d)``: what every feature map, lazy or stored, hands to linear algebra.

    ``Φ @ v``, ``Φ.mT @ u``, rows, slices and masks work alike on dense, computed and stored rows.
    ``Φ @ Ψ.mT`` is a :class:`GramMatrix`, whose dense form takes the source's fastest exact route;
    ``Φ.mT @ Φ`` a :class:`NormalMatrix`; ``Φ @ S.mT`` of a bound sketch the sketched rows, and no step of it holds
    more of Φ than the source does. It is 2-D, immutable, pickled and copied with its source, and not differentiable
    in what its rows are made of (``phi(x)`` is). Solves, log-determinants and spectra are
    :func:`tangrams.operators.solve`, :func:`~tangrams.operators.logdet` and :func:`~tangrams.operators.eigsh`.

    Args:
        rows: the source; a tensor stands for ``DenseRows(tensor)``.

    Shape:
        ``(N, d)``; right-hand sides may have batch dimensions.

    Raises:
        TypeError: if ``rows`` is not a source of rows.
        ValueError: from every batch operation: a feature matrix is 2-D.

    Example:
        >>> phi = FeatureMatrix(rows=torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]))
        >>> (phi[:2] @ phi.mT).to_dense()
        tensor([[5., 2., 3.],
                [2., 1., 0.]])
    """

    def __init__(self, *, rows: Rows | Tensor) -> None:
        source = DenseRows(rows) if isinstance(rows, Tensor) else rows
        if not isinstance(source, Rows):
            raise TypeError(f"FeatureMatrix stands over Rows, got {type(rows).__name__}: wrap a tensor in DenseRows")
        super().__init__(rows=source)
        self.rows: Rows = source

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every answer."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """The device of every answer."""
        return self.rows.device

    def _size(self) -> torch.Size:
        return torch.Size(self.rows.shape)

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        return unfold(self.rows.matmul(fold(rhs)), rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._t_matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[0])
        return unfold(self.rows.t_matmul(fold(rhs)), rhs)

    def matmul(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        """``Φ @ other``; the transposes of a feature matrix and of a sketch take routes of their own."""
        if isinstance(other, TransposedFeatureMatrix):
            if other.rows.shape[1] != self.shape[1]:
                raise ValueError(
                    f"a Gram matrix needs equal columns, got {tuple(self.shape)} @ {tuple(other.shape)}: "
                    "the two feature matrices come from different maps"
                )
            return GramMatrix(left=self.rows, right=other.rows)
        if isinstance(other, TransposedSketchMatrix):
            return self.rows.project(other.sketch)
        return super().matmul(other)

    @overload
    def __matmul__(self, other: Tensor | TransposedSketchMatrix) -> Tensor: ...
    @overload
    def __matmul__(self, other: TransposedFeatureMatrix) -> GramMatrix: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    def __matmul__(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        return self.matmul(other)

    if TYPE_CHECKING:

        @property
        def mT(self) -> TransposedFeatureMatrix:
            """Φᵀ."""
            ...  # its type alone: LinearOperator's own property runs

    def _transpose_nonbatch(self) -> TransposedFeatureMatrix:
        return TransposedFeatureMatrix(rows=self.rows)

    def to_dense(self) -> Tensor:
        """All rows, ``(N, d)``; not kept."""
        return self.rows.dense()

    def diag_gram(self) -> Tensor:
        """Squared norms of the rows: the diagonal of ``Φ @ Φ.mT``."""
        return self.rows.diag()

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> FeatureMatrix:
        rows = self.rows if row is None else self.rows.take(row)
        return FeatureMatrix(rows=rows if col is None else ColumnRows(rows, col))

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        wanted, position = row.unique(return_inverse=True)
        out = torch.empty(row.shape, dtype=self.dtype, device=self.device)
        for start, stop, panel in row_panels(self.rows.take(wanted)):
            here = (start <= position) & (position < stop)
            out[here] = panel[position[here] - start, col[here]]
        return out

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> FeatureMatrix:
        return FeatureMatrix(rows=self.rows.to(dtype, device))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype}, rows={type(self.rows).__name__})"


class TransposedFeatureMatrix(OpaqueOperator):
    """Φᵀ, ``(d, N)``: what ``Φ.mT`` is.

    Args:
        rows: the source of Φ.
    """

    def __init__(self, *, rows: Rows) -> None:
        super().__init__(rows=rows)
        self.rows: Rows = rows

    dtype = FeatureMatrix.dtype  # type: ignore[assignment]
    device = FeatureMatrix.device  # type: ignore[assignment]
    __repr__ = FeatureMatrix.__repr__

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> TransposedFeatureMatrix:
        return TransposedFeatureMatrix(rows=self.rows.to(dtype, device))

    def _size(self) -> torch.Size:
        return torch.Size((self.rows.shape[1], self.rows.shape[0]))

    def _matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._t_matmul(rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._matmul(rhs)

    def matmul(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        """``Φᵀ @ other``; ``Φ.mT @ Φ`` is a :class:`NormalMatrix`."""
        if isinstance(other, FeatureMatrix) and other.rows is self.rows:
            return NormalMatrix(rows=self.rows)
        return super().matmul(other)

    @overload
    def __matmul__(self, other: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, other: FeatureMatrix) -> NormalMatrix: ...
    @overload
    def __matmul__(self, other: LinearOperator) -> LinearOperator: ...
    def __matmul__(self, other: Tensor | LinearOperator) -> Tensor | LinearOperator:
        return self.matmul(other)

    if TYPE_CHECKING:

        @property
        def mT(self) -> FeatureMatrix:
            """Φ."""
            ...  # its type alone: LinearOperator's own property runs

    def _transpose_nonbatch(self) -> FeatureMatrix:
        return FeatureMatrix(rows=self.rows)

    def to_dense(self) -> Tensor:
        """``(d, N)``; not kept."""
        return self.rows.dense().mT

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> TransposedFeatureMatrix:
        return self._transpose_nonbatch()._submatrix(col, row)._transpose_nonbatch()

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        return self._transpose_nonbatch()._pairs(col, row)


def trace(matrix: Tensor | LinearOperator) -> Tensor:
    """The trace of a square tensor or operator; of a Gram matrix from the rows' squared norms alone.

    Args:
        matrix: ``(n, n)``

    Raises:
        ValueError: if the matrix is not square.
    """
    if matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"trace needs a square matrix, got {tuple(matrix.shape)}")
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def as_feature_matrix(features: Any) -> FeatureMatrix:
    """A feature matrix over what is given: one already, a source of rows, or a dense tensor.

    Args:
        features: a :class:`FeatureMatrix`, :class:`Rows` or a ``(N, d)`` tensor.
    """
    return features if isinstance(features, FeatureMatrix) else FeatureMatrix(rows=features)
