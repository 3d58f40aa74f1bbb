"""How a matrix is inverted: by Woodbury, by a dense factorisation, or by preconditioned conjugate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tangrams.operators.dense_rows import row_panels
from tangrams.operators.gram_matrix import GramMatrix
from tangrams.operators.krylov import (
    Preconditioner,
    Product,
    conjugate_gradients,
    nystrom_preconditioner,
)
from tangrams.operators.normal_matrix import NormalMatrix
from tangrams.operators.rows import Rows
from tangrams.operators.structure import Structure


@dataclass(frozen=True)
class Direct:
    """A factorised matrix.

    Attributes:
        backsolve: ``v → A⁻¹ v``, to rounding.
        product: ``v → A v``, to measure what was reached.
        logdet: ``log det A``; None where A is not positive definite.
    """

    backsolve: Product
    product: Product
    logdet: Tensor | None
    remedy = "A is singular or too ill-conditioned for float64; add a ridge, or ask for less with rtol"

    def inverse(self, b: Tensor, rtol: float, max_iterations: int) -> tuple[Tensor, int]:
        """``A⁻¹ b``, and no iterations."""
        return self.backsolve(b), 0


def direct_route(structure: Structure, memory_budget: int) -> Direct | None:
    """The cheapest factorisation that fits the budget; None if none does.

    Args:
        structure: the matrix.
        memory_budget: bytes that may be held.
    """
    core, n = structure.core, len(structure.diagonal)
    if core is None:
        diagonal = structure.diagonal[:, None]
        logdet = diagonal.log().sum() if bool((diagonal > 0).all()) else None
        return Direct(lambda v: v / diagonal, structure.product, logdet)
    positive = structure.scale > 0 and bool((structure.diagonal > 0).all())
    if positive and isinstance(core, GramMatrix) and core.is_symmetric:
        d = core.left.shape[1]
        if d <= n and _fits(d, memory_budget):
            return _primal(structure, core.left)
    if positive and isinstance(core, NormalMatrix) and structure.ridge is not None:
        height = core.rows.shape[0]
        if height < n and _fits(height, memory_budget):
            return _dual(structure, core.rows, structure.ridge)
    return _dense(structure) if _fits(n, memory_budget) else None


def _fits(n: int, memory_budget: int) -> bool:
    return 2 * 8 * n * n <= memory_budget  # the matrix and its factor


def _dense(structure: Structure) -> Direct:
    matrix = structure.dense()
    if not bool(matrix.isfinite().all()):
        i, j = (~matrix.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"the matrix has a non-finite entry at ({i}, {j})")
    if structure.is_symmetric(matrix):
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info) == 0:
            logdet = 2 * factor.diagonal().log().sum()
            return Direct(lambda v: torch.cholesky_solve(v, factor), lambda v: matrix @ v, logdet)
    lu, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    return Direct(lambda v: torch.linalg.lu_solve(lu, pivots, v), lambda v: matrix @ v, None)


def _primal(structure: Structure, rows: Rows) -> Direct:
    """Woodbury through ``(d, d)``: one pass over the rows to factorise."""
    inner = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64, device=rows.device)
    for start, stop, panel in row_panels(rows):
        scaled = panel / structure.diagonal[start:stop, None].sqrt()
        inner.addmm_(scaled.mT, scaled)
    return _woodbury(structure, rows.matmul, rows.t_matmul, inner)


def _dual(structure: Structure, rows: Rows, ridge: float) -> Direct:
    """Woodbury of ``s ΦᵀΦ + δI`` through the ``(n, n)`` Gram matrix."""
    return _woodbury(structure, rows.t_matmul, rows.matmul, rows.gram(rows) / ridge)


def _woodbury(structure: Structure, tall: Product, wide: Product, inner: Tensor) -> Direct:
    r"""``(s F Fᵀ + D)⁻¹ = D⁻¹ − s D⁻¹ F (I + s Fᵀ D⁻¹ F)⁻¹ Fᵀ D⁻¹``, given ``inner`` = Fᵀ D⁻¹ F."""
    diagonal = structure.diagonal[:, None]
    inner.mul_(structure.scale).diagonal().add_(1)
    factor = torch.linalg.cholesky(inner)

    def inverse(v: Tensor) -> Tensor:
        shrunk = v / diagonal
        return shrunk - structure.scale * tall(torch.cholesky_solve(wide(shrunk), factor)) / diagonal

    logdet = diagonal.log().sum() + 2 * factor.diagonal().log().sum()
    return Direct(inverse, structure.product, logdet)


@dataclass(frozen=True)
class Iterative:
    """A matrix too large to factorise, scaled to ``D^-½ A D^-½`` and preconditioned.

    Attributes:
        structure: the matrix.
        root: D^½, ones where no diagonal was added.
        preconditioner: of the scaled matrix.
    """

    structure: Structure
    root: Tensor
    preconditioner: Preconditioner
    remedy = "raise max_iterations, memory_budget or the ridge, or ask for less with rtol"

    def product(self, v: Tensor) -> Tensor:
        """``A v``."""
        return self.structure.product(v)

    def scaled_product(self, v: Tensor) -> Tensor:
        """``D^-½ A D^-½ v``."""
        return self.structure.product(v / self.root) / self.root

    def whitened_product(self, v: Tensor) -> Tensor:
        """``P^-½ D^-½ A D^-½ P^-½ v``, whose spectrum is flat if the preconditioner is good."""
        return self.preconditioner.apply(self.scaled_product(self.preconditioner.apply(v, -0.5)), -0.5)

    def inverse(self, b: Tensor, rtol: float, max_iterations: int) -> tuple[Tensor, int]:
        """``A⁻¹ b`` by conjugate gradients, and the products taken."""
        precondition: Callable[[Tensor], Tensor] = lambda v: self.preconditioner.apply(v, -1.0)  # noqa: E731
        x, steps = conjugate_gradients(self.scaled_product, b / self.root, precondition, rtol, max_iterations)
        return x / self.root, steps


def iterative_route(structure: Structure, memory_budget: int, generator: torch.Generator) -> Iterative:
    """Scale and precondition; one block product with the core.

    Args:
        structure: the matrix.
        memory_budget: bytes that may be held.
        generator: draws the preconditioner's test matrix.
    """
    core, n = structure.core, len(structure.diagonal)
    assert core is not None  # a diagonal matrix always has a direct route
    ridged = bool((structure.diagonal > 0).all())
    root = structure.diagonal.sqrt()[:, None] if ridged else torch.ones_like(structure.diagonal)[:, None]
    rank = min(n, max(50, 4 * math.isqrt(n)), max(1, memory_budget // (8 * 8 * n)))
    product: Product = lambda v: structure.scale * core._matmul(v / root) / root  # noqa: E731
    shift = 1.0 if ridged else 0.0
    preconditioner = nystrom_preconditioner(product, n, rank, shift, generator, structure.diagonal.device)
    if not ridged:  # no ridge to flatten down to: flatten to the smallest value that was caught
        floor = max(float(preconditioner.values[-1]), 1e-10 * float(preconditioner.values[0]))
        preconditioner = Preconditioner(preconditioner.vectors, preconditioner.values, floor or 1.0)
    return Iterative(structure, root, preconditioner)
