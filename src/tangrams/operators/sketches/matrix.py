"""A bound sketch as a matrix: S and its transpose as linear operators."""

from __future__ import annotations

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.operators.opaque import OpaqueOperator, fold, unfold
from tangrams.operators.sketches.base import Sketch


class SketchMatrix(OpaqueOperator):
    """S, ``(k, p)``, of a bound sketch; its entries exist only as products.

    Args:
        sketch: a bound sketch.
        dtype: the dtype it multiplies in.
        device: the device it multiplies on.
    """

    def __init__(self, *, sketch: Sketch, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(sketch=sketch, dtype=dtype, device=device)
        self.sketch = sketch

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it multiplies in."""
        return self._nondifferentiable_kwargs["dtype"]

    @property
    def device(self) -> torch.device:
        """The device it multiplies on."""
        return self._nondifferentiable_kwargs["device"]

    def _size(self) -> torch.Size:
        return torch.Size((self.sketch.num_features, self.sketch.in_features))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        return unfold(self.sketch.project(fold(rhs).mT).mT, rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._t_matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[0])
        return unfold(self.sketch.lift(fold(rhs).mT).mT, rhs)

    def _transpose_nonbatch(self) -> TransposedSketchMatrix:
        return TransposedSketchMatrix(sketch=self.sketch, dtype=self.dtype, device=self.device)

    def _columns(self, col: Tensor) -> Tensor:
        unit = torch.zeros(len(col), self.shape[1], dtype=self.dtype, device=self.device)
        unit[torch.arange(len(col), device=self.device), col] = 1
        return self.sketch.project(unit).mT

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        from tangrams.operators.feature_matrix import FeatureMatrix

        if row is not None:
            unit = torch.zeros(len(row), self.shape[0], dtype=self.dtype, device=self.device)
            unit[torch.arange(len(row), device=self.device), row] = 1
            dense = self.sketch.lift(unit)
            return FeatureMatrix(rows=dense if col is None else dense[:, col])
        return FeatureMatrix(rows=self._columns(torch.arange(self.shape[1]) if col is None else col))

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        wanted, position = col.unique(return_inverse=True)
        return self._columns(wanted)[row, position]

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> SketchMatrix:
        return SketchMatrix(sketch=self.sketch, dtype=dtype or self.dtype, device=device or self.device)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)}, sketch={type(self.sketch).__name__})"


class TransposedSketchMatrix(OpaqueOperator):
    """Sᵀ, ``(p, k)``: ``Φ @ S.mT`` are the sketched features.

    Args:
        sketch: a bound sketch.
        dtype: the dtype it multiplies in.
        device: the device it multiplies on.
    """

    def __init__(self, *, sketch: Sketch, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(sketch=sketch, dtype=dtype, device=device)
        self.sketch = sketch

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it multiplies in."""
        return self._nondifferentiable_kwargs["dtype"]

    @property
    def device(self) -> torch.device:
        """The device it multiplies on."""
        return self._nondifferentiable_kwargs["device"]

    __repr__ = SketchMatrix.__repr__

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> TransposedSketchMatrix:
        return TransposedSketchMatrix(sketch=self.sketch, dtype=dtype or self.dtype, device=device or self.device)

    def _size(self) -> torch.Size:
        return torch.Size((self.sketch.in_features, self.sketch.num_features))

    def _matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._t_matmul(rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._matmul(rhs)

    def _transpose_nonbatch(self) -> SketchMatrix:
        return SketchMatrix(sketch=self.sketch, dtype=self.dtype, device=self.device)

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        return self._transpose_nonbatch()._submatrix(col, row)._transpose_nonbatch()

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        return self._transpose_nonbatch()._pairs(col, row)
