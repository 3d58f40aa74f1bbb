"""Reading a matrix as ``scale · core + diagonal``, so that a solve can choose its route."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from linear_operator.operators import (
    AddedDiagLinearOperator,
    ConstantMulLinearOperator,
    DenseLinearOperator,
    DiagLinearOperator,
    LinearOperator,
    RootLinearOperator,
)
from torch import Tensor

from tangrams.operators.dense_rows import DenseRows
from tangrams.operators.gram_matrix import GramMatrix
from tangrams.operators.normal_matrix import NormalMatrix

MEMORY_BUDGET = 2 << 30
"""Bytes that a solve may hold beyond its inputs, by default."""


@dataclass(frozen=True)
class Structure:
    """``A = scale · core + diag(diagonal)``, every number in float64.

    Attributes:
        core: what is left when scales and diagonals are peeled off; None for a diagonal matrix.
        scale: the factor of the core.
        diagonal: ``(n,)``, zeros where nothing was added.
        epsilon: relative rounding of the entries it was given in.
    """

    core: LinearOperator | None
    scale: float
    diagonal: Tensor
    epsilon: float

    @property
    def ridge(self) -> float | None:
        """The diagonal's value where it is one positive number."""
        if not len(self.diagonal):
            return None
        value = float(self.diagonal[0])
        return value if value > 0 and bool((self.diagonal == value).all()) else None

    def is_symmetric(self, matrix: Tensor, panel: int = 1024) -> bool:
        """Whether A is symmetric: by what it is made of, or to the rounding of its entries.

        Args:
            matrix: :meth:`dense`.
            panel: rows compared at once.
        """
        if isinstance(self.core, NormalMatrix) or (isinstance(self.core, GramMatrix) and self.core.is_symmetric):
            return True
        tolerance = max(1e-10, 16 * self.epsilon) * float(matrix.abs().amax()) if len(matrix) else 0.0
        return all(
            bool(((matrix[i : i + panel] - matrix[:, i : i + panel].mT).abs() <= tolerance).all())
            for i in range(0, len(matrix), panel)
        )

    def product(self, v: Tensor) -> Tensor:
        """``A v`` in float64."""
        out = self.diagonal[:, None] * v
        if self.core is None:
            return out
        return out.add_(self.core._matmul(v), alpha=self.scale)

    def dense(self) -> Tensor:
        """A in float64, the core formed by its own fastest exact route; a fresh tensor."""
        if self.core is None:
            return torch.diag(self.diagonal)
        out = self.core.to_dense().to(torch.float64) * self.scale
        out.diagonal().add_(self.diagonal)
        return out


def read_structure(matrix: Tensor | LinearOperator) -> Structure:
    """Peel scales and diagonals off a square matrix.

    Args:
        matrix: a tensor or any ``LinearOperator``, ``(n, n)``.

    Raises:
        ValueError: if it is not one square matrix.
    """
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a square matrix (n, n) is needed, got shape {tuple(matrix.shape)}")
    core: LinearOperator = DenseLinearOperator(matrix) if isinstance(matrix, Tensor) else matrix
    scale = 1.0
    epsilon = torch.finfo(matrix.dtype or torch.float64).eps
    diagonal = torch.zeros(matrix.shape[0], dtype=torch.float64, device=torch.device(matrix.device or "cpu"))
    while True:
        if isinstance(core, DiagLinearOperator):
            return Structure(None, 0.0, diagonal + scale * core._diagonal().detach().to(torch.float64), epsilon)
        if isinstance(core, AddedDiagLinearOperator):
            diagonal = diagonal + scale * core._diag_tensor._diagonal().detach().to(torch.float64)
            core = cast(LinearOperator, core._linear_op)
        elif isinstance(core, ConstantMulLinearOperator) and core._constant.numel() == 1:
            scale *= float(core._constant.detach())
            core = core.base_linear_op
        else:
            break
    if isinstance(core, RootLinearOperator):
        rows = DenseRows(core.root.to_dense().to(torch.float64))
        core = GramMatrix(left=rows, right=rows)
    return Structure(core.to(torch.float64), scale, diagonal, epsilon)
