"""Sparse products with gradients, on masks, over semirings, and as operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Num
from linear_operator.operators import LinearOperator
from torch import Tensor
from torch.autograd.function import once_differentiable

from tangrams.operators.feature_matrix import FeatureMatrix
from tangrams.operators.opaque import OpaqueOperator, fold, unfold
from tangrams.operators.sparse_products.csr import (
    CSR,
    PORTION,
    check_product,
    csr_matmul,
    cut,
    flops_per_row,
    meetings,
    portions,
)
from tangrams.operators.sparse_products.dataflows import AutomaticDataflow, Dataflow, assembled


def spgemm(a: CSR, b: CSR, *, dataflow: Dataflow | None = None) -> CSR:
    """A B of two sparse matrices, sparse; differentiable in the values of both [096].

    The gradients are sparse products too, A's on the pattern of A and B's on that of B; nothing dense is formed. Places
    where products cancel are kept, as zeros: see :meth:`CSR.prune`.

    Args:
        a: ``(n, k)``.
        b: ``(k, m)``.
        dataflow: the order of the work, :class:`AutomaticDataflow` by default; the result is the same but for rounding.

    Example:
        >>> a = CSR.from_torch(torch.tensor([[0.0, 2.0], [1.0, 0.0]]))
        >>> spgemm(a, a).to_dense()
        tensor([[2., 0.],
                [0., 2.]])
    """
    check_product(a, b, "spgemm")
    crow, col, values = _Product.apply(dataflow or AutomaticDataflow(), a, b, a.values, b.values)
    return CSR(crow, col, values, b.num_cols)


def masked_spgemm(a: CSR, b: CSR, mask: CSR) -> CSR:
    """The entries of A B where the mask has entries, and no others; differentiable in the values of both [096].

    Args:
        a: ``(n, k)``.
        b: ``(k, m)``.
        mask: ``(n, m)``; its values are not read.

    Raises:
        ValueError: if the mask has another shape.
    """
    check_product(a, b, "masked_spgemm")
    if mask.shape != (a.shape[0], b.num_cols):
        raise ValueError(f"masked_spgemm needs a mask of shape {(a.shape[0], b.num_cols)}, got {mask.shape}")
    return mask._replace(values=_MaskedProduct.apply(mask, a, b, a.values, b.values))


def _visit(a: CSR, b: CSR, pattern: CSR, visit: Callable[[Tensor, Tensor, Tensor], None]) -> None:
    """Call ``visit(entries of A, entries of B, entries of the pattern)`` for all partial products that fall on it."""
    if not pattern.nnz:
        return
    codes, rows = pattern.codes, a.row
    for first, last in portions(a, b):
        left, right = meetings(a, b, first, last)
        wanted = rows[left] * pattern.num_cols + b.col[right]
        where = torch.searchsorted(codes, wanted).clamp_max(len(codes) - 1)
        hit = codes[where] == wanted
        visit(left[hit], right[hit], where[hit])


def product_gradients(
    a: CSR, b: CSR, pattern: CSR, grad: Num[Tensor, "nnz"]
) -> tuple[Num[Tensor, "p"], Num[Tensor, "q"]]:
    """``G Bᴴ`` on the entries of A and ``Aᴴ G`` on those of B, G having the given pattern.

    Args:
        a: the left factor.
        b: the right factor.
        pattern: of the product, or of its mask.
        grad: G's values.
    """
    left_grad, right_grad = torch.zeros_like(a.values), torch.zeros_like(b.values)

    def visit(left: Tensor, right: Tensor, where: Tensor) -> None:
        g = grad[where]
        left_grad.index_add_(0, left, g * b.values[right].conj())
        right_grad.index_add_(0, right, g * a.values[left].conj())

    _visit(a, b, pattern, visit)
    return left_grad, right_grad


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dataflow: Dataflow, a: CSR, b: CSR, a_values: Tensor, b_values: Tensor) -> Any:
        made, _ = dataflow.product(a._replace(values=a_values.detach()), b._replace(values=b_values.detach()))
        ctx.a, ctx.b, ctx.made = a._replace(values=a.crow), b._replace(values=b.crow), made._replace(values=made.crow)
        ctx.save_for_backward(a_values, b_values)
        ctx.mark_non_differentiable(made.crow, made.col)
        return made.crow, made.col, made.values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _crow: Tensor, _col: Tensor, grad: Tensor) -> Any:
        a_values, b_values = ctx.saved_tensors
        return (
            None,
            None,
            None,
            *product_gradients(ctx.a._replace(values=a_values), ctx.b._replace(values=b_values), ctx.made, grad),
        )


class _MaskedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mask: CSR, a: CSR, b: CSR, a_values: Tensor, b_values: Tensor) -> Tensor:
        out = a_values.new_zeros(mask.nnz)

        def visit(left: Tensor, right: Tensor, where: Tensor) -> None:
            out.index_add_(0, where, a_values[left] * b_values[right])

        _visit(a, b, mask, visit)
        ctx.a, ctx.b, ctx.mask = a._replace(values=a.crow), b._replace(values=b.crow), mask._replace(values=mask.crow)
        ctx.save_for_backward(a_values, b_values)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        a_values, b_values = ctx.saved_tensors
        return (
            None,
            None,
            None,
            *product_gradients(ctx.a._replace(values=a_values), ctx.b._replace(values=b_values), ctx.mask, grad),
        )


@dataclass(frozen=True)
class Semiring:
    """What takes the places of times and plus.

    Attributes:
        multiply: of two tensors of values.
        reduce: how values of one place are combined, as ``Tensor.scatter_reduce`` names it.
    """

    multiply: Callable[[Tensor, Tensor], Tensor]
    reduce: str


PLUS_TIMES = Semiring(torch.mul, "sum")
OR_AND = Semiring(lambda x, y: ((x != 0) & (y != 0)).to(x.dtype), "amax")
"""Whether there is a path of two steps."""
MIN_PLUS = Semiring(torch.add, "amin")
"""The length of the shortest path of two steps."""


def semiring_spgemm(a: CSR, b: CSR, semiring: Semiring) -> CSR:
    """The product over another semiring; places without a pair of entries are absent. Not differentiable.

    Runs of rows with at most :data:`~tangrams.operators.sparse_products.csr.PORTION` pairs of entries are in hand at
    once, or one row.

    Args:
        a: ``(n, k)``.
        b: ``(k, m)``.
        semiring: :data:`MIN_PLUS`, :data:`OR_AND`, or another.
    """
    check_product(a, b, "semiring_spgemm")
    row, a_values, b_values = a.row, a.values.detach(), b.values.detach()
    places, reduced = [], []
    for first, last in cut(flops_per_row(a, b), PORTION):
        left, right = meetings(a, b, int(a.crow[first]), int(a.crow[last]))
        distinct, where = torch.unique(row[left] * b.num_cols + b.col[right], return_inverse=True)
        values = semiring.multiply(a_values[left], b_values[right])
        out = values.new_zeros(len(distinct)).scatter_reduce(0, where, values, semiring.reduce, include_self=False)
        places.append(distinct)
        reduced.append(out)
    return assembled(a, b, places, reduced)


def graph_square(adjacency: CSR) -> CSR:
    """``A²``: how many paths of two edges lead from one node to another.

    Args:
        adjacency: square; its values are taken as one.
    """
    ones = adjacency._replace(values=torch.ones_like(adjacency.values))
    return spgemm(ones, ones)


def triangle_count(adjacency: CSR) -> int:
    """Triangles of an undirected graph: the sum of ``(L L) ∘ L``, L below the diagonal once nodes are sorted by degree.

    Args:
        adjacency: square and symmetric in its pattern; values and self-loops are not read.

    Raises:
        ValueError: if it is not square.
    """
    n, m = adjacency.shape
    if n != m:
        raise ValueError(f"triangle_count needs a square adjacency matrix, got {adjacency.shape}")
    # The largest degrees first: then every node has few neighbours before it, O(√edges).
    rank = torch.empty(n, dtype=torch.int64, device=adjacency.col.device)
    rank[adjacency.crow.diff().argsort(descending=True, stable=True)] = torch.arange(n, device=rank.device)
    ones = torch.ones(adjacency.nnz, dtype=torch.int64, device=rank.device)
    lower = CSR.from_entries(rank[adjacency.row], rank[adjacency.col], ones, (n, n)).lower()
    lower = lower._replace(values=torch.ones_like(lower.values))
    return int(masked_spgemm(lower, lower, lower).values.sum())


class SparseProductOperator(OpaqueOperator):
    """A B as an operator that is never formed: ``(A B) x = A (B x)`` [096].

    Not differentiable in the values: use :func:`spgemm` or :func:`csr_matmul`, which are.

    Args:
        a: ``(n, k)``.
        b: ``(k, m)``.

    Raises:
        ValueError: if they do not fit.
    """

    def __init__(self, *, a: CSR, b: CSR) -> None:
        check_product(a, b, "SparseProductOperator")
        a, b = a._replace(values=a.values.detach()), b._replace(values=b.values.detach())
        super().__init__(a=a, b=b)
        self.a, self.b = a, b
        self._transposed: SparseProductOperator | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_transposed": None}

    @property
    def dtype(self) -> torch.dtype:
        """That of the values."""
        return self.a.values.dtype

    @property
    def device(self) -> torch.device:
        """That of the values."""
        return self.a.values.device

    def materialise(self, *, dataflow: Dataflow | None = None) -> CSR:
        """The product as a sparse matrix.

        Args:
            dataflow: as in :func:`spgemm`.
        """
        return spgemm(self.a, self.b, dataflow=dataflow)

    def _size(self) -> torch.Size:
        return torch.Size((self.a.shape[0], self.b.num_cols))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        return unfold(csr_matmul(self.a, csr_matmul(self.b, fold(rhs))), rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._matmul(rhs)

    def _transpose_nonbatch(self) -> SparseProductOperator:
        if self._transposed is None:  # sorted once: solvers ask for it at every step
            self._transposed = SparseProductOperator(a=self.b.transpose(), b=self.a.transpose())
            self._transposed._transposed = self
        return self._transposed

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        if row is None:
            assert col is not None
            unit = torch.zeros(self.shape[1], len(col), dtype=self.dtype, device=self.device)
            unit[col, torch.arange(len(col), device=self.device)] = 1
            return FeatureMatrix(rows=self._matmul(unit))
        unit = torch.zeros(self.shape[0], len(row), dtype=self.dtype, device=self.device)
        unit[row, torch.arange(len(row), device=self.device)] = 1
        dense = self._t_matmul(unit).mT
        return FeatureMatrix(rows=dense if col is None else dense[:, col])

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        wanted, position = row.unique(return_inverse=True)
        return self._submatrix(wanted, None).to_dense()[position, col]

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> SparseProductOperator:
        factors = (
            CSR(f.crow.to(device), f.col.to(device), f.values.to(dtype=dtype, device=device), f.num_cols)
            for f in (self.a, self.b)
        )
        return SparseProductOperator(**dict(zip(("a", "b"), factors, strict=True)))

    def __repr__(self) -> str:
        return f"SparseProductOperator({tuple(self.shape)}, {self.a.nnz} and {self.b.nnz} entries)"
