"""The role of a curvature operator: a symmetric matrix over parameters, known by its products."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from linear_operator.operators import DenseLinearOperator, LinearOperator
from torch import Tensor

from tangrams.operators.opaque import OpaqueOperator, fold, unfold

_CHUNK = 16
"""Columns that are multiplied at once."""

Parameters = Mapping[str, Tensor]


class CurvatureOperator(OpaqueOperator):
    """A symmetric (p, p) matrix over the entries of named parameters, in their order.

    Products are computed in the dtype of the parameters; a cast changes that of the answers alone. A member writes
    :meth:`_product`, and :meth:`_cast`.

    Args:
        at: name → value; where the curvature is taken.
        answers: the dtype of the answers; that of the parameters by default.
        **source: the member's own arguments, from which copies are made.

    Raises:
        ValueError: if there are no parameters, they differ in dtype or device, or are below float32.
    """

    def __init__(self, at: Parameters, answers: torch.dtype | None, /, **source: object) -> None:
        super().__init__(**source)
        kinds = {(p.dtype, p.device) for p in at.values()}
        if len(kinds) != 1:
            raise ValueError(
                f"{type(self).__name__} needs parameters of one dtype and device, got {sorted(map(str, kinds))}"
            )
        first = next(iter(at.values()))
        if not first.is_floating_point() or first.dtype.itemsize < 4:
            raise ValueError(
                f"{type(self).__name__} needs float32 or float64, got {first.dtype}: second derivatives are lost below"
            )
        self.at: dict[str, Tensor] = {name: p.detach() for name, p in at.items()}
        self._dtype = answers or first.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every answer."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """That of the parameters."""
        return next(iter(self.at.values())).device

    @abstractmethod
    def _product(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Hook: the products with c vectors at once, each tensor ``(c, *shape)``."""

    def _size(self) -> torch.Size:
        p = sum(value.numel() for value in self.at.values())
        return torch.Size((p, p))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        columns = [self._columns(part) for part in fold(rhs).split(_CHUNK, 1)]
        return unfold(torch.cat(columns, 1), rhs)

    def _columns(self, columns: Tensor) -> Tensor:
        first = next(iter(self.at.values()))
        flat = columns.detach().mT.to(first.dtype)
        sizes = [value.numel() for value in self.at.values()]
        parts = zip(self.at.items(), flat.split(sizes, 1), strict=True)
        vectors = {name: part.reshape(len(flat), *value.shape) for (name, value), part in parts}
        products = self._product(vectors)
        return torch.cat([products[name].flatten(1) for name in self.at], 1).mT.to(self.dtype)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def _transpose_nonbatch(self) -> CurvatureOperator:
        return self

    def to_dense(self) -> Tensor:
        """``(p, p)``, by p products; symmetric to the bit."""
        dense = self._matmul(torch.eye(self.shape[0], dtype=self.dtype, device=self.device))
        return (dense + dense.mT) / 2

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        if row is not None and (col is None or len(row) < len(col)):  # symmetric: the shorter side costs the products
            part = self._matmul(self._units(row)).mT
            return DenseLinearOperator(part if col is None else part[:, col])
        col = torch.arange(self.shape[0], device=self.device) if col is None else col
        part = self._matmul(self._units(col))
        return DenseLinearOperator(part if row is None else part[row])

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        needed, position = col.unique(return_inverse=True)
        return self._matmul(self._units(needed))[row, position]

    def _units(self, index: Tensor) -> Tensor:
        units = torch.zeros(self.shape[0], len(index), dtype=self.dtype, device=self.device)
        units[index, torch.arange(len(index), device=self.device)] = 1
        return units

    def __repr__(self) -> str:
        return f"{type(self).__name__}({tuple(self.shape)}, {self.dtype}, {self.device})"
