"""Sparse matrices in compressed rows, and what a sparse product does to them entry by entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64, Num
from torch import Tensor

PORTION = 1 << 18
"""Partial products that are formed at once."""


class CSR(NamedTuple):
    """A sparse matrix in compressed rows: canonical, that is with sorted columns in every row and none twice.

    Attributes:
        crow: where each row starts, ``(n + 1,)``.
        col: column of each entry, ``(nnz,)``.
        values: of each entry, ``(nnz,)``; differentiable wherever products are.
        num_cols: m.
    """

    crow: Tensor
    col: Tensor
    values: Tensor
    num_cols: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``."""
        return len(self.crow) - 1, self.num_cols

    @property
    def nnz(self) -> int:
        """How many entries are stored, zeros included."""
        return len(self.col)

    @property
    def row(self) -> Int64[Tensor, "nnz"]:
        """Row of each entry."""
        return torch.repeat_interleave(torch.arange(self.shape[0], device=self.crow.device), self.crow.diff())

    @property
    def codes(self) -> Int64[Tensor, "nnz"]:
        """``row · m + column``, ascending."""
        return self.row * self.num_cols + self.col

    @classmethod
    def from_entries(
        cls,
        row: Int64[Tensor, "e"],
        col: Int64[Tensor, "e"],
        values: Num[Tensor, "e"],
        shape: tuple[int, int],
    ) -> CSR:
        """From entries in any order; those of one place are added. Differentiable in the values.

        Args:
            row: of each entry.
            col: of each entry.
            values: of each entry.
            shape: ``(n, m)``.

        Raises:
            ValueError: if an index is outside the shape.
        """
        n, m = shape
        if len(row) and not (int(row.min()) >= 0 and int(row.max()) < n and int(col.min()) >= 0 and int(col.max()) < m):
            raise ValueError(f"CSR.from_entries got an index outside the shape {shape}")
        codes, where = torch.unique(row * m + col, return_inverse=True)
        summed = values.new_zeros(len(codes)).index_add(0, where, values)
        rows = torch.div(codes, max(m, 1), rounding_mode="floor")
        return cls(_starts(torch.bincount(rows, minlength=n)), codes - rows * m, summed, m)

    @classmethod
    def from_torch(cls, matrix: Tensor) -> CSR:
        """From a two-dimensional tensor, dense or of a sparse layout.

        Args:
            matrix: ``(n, m)``.

        Raises:
            ValueError: if it has another number of dimensions.
        """
        if matrix.ndim != 2:
            raise ValueError(f"CSR.from_torch takes one matrix, got {matrix.ndim} dimensions: loop over the batch")
        if matrix.layout == torch.strided:
            row, col = matrix.nonzero(as_tuple=True)
            return cls.from_entries(row, col, matrix[row, col], (matrix.shape[0], matrix.shape[1]))
        coo = matrix.to_sparse_coo() if matrix.layout != torch.sparse_coo else matrix
        row, col = coo._indices()
        return cls.from_entries(row, col, coo._values(), (matrix.shape[0], matrix.shape[1]))

    @classmethod
    def from_scipy(cls, matrix: Any) -> CSR:
        """From any SciPy sparse matrix.

        Args:
            matrix: ``(n, m)``.
        """
        matrix = matrix.tocsr()
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        crow, col = (torch.from_numpy(a.astype("int64")) for a in (matrix.indptr, matrix.indices))
        return cls(crow, col, torch.tensor(matrix.data), matrix.shape[1])

    def to_torch(self) -> Tensor:
        """As a ``torch.sparse_csr`` tensor."""
        return torch.sparse_csr_tensor(self.crow, self.col, self.values, self.shape, check_invariants=False)

    def to_scipy(self) -> Any:
        """As a ``scipy.sparse.csr_array``."""
        from scipy.sparse import csr_array

        parts = (t.detach().cpu().numpy() for t in (self.values, self.col, self.crow))
        return csr_array(tuple(parts), shape=self.shape)

    def to_dense(self) -> Tensor:
        """All entries; differentiable in the values."""
        n, m = self.shape
        return self.values.new_zeros(n * m).index_add(0, self.codes, self.values).reshape(n, m)

    def transpose(self) -> CSR:
        """The columns as rows."""
        order = torch.argsort(self.col, stable=True)
        counts = torch.bincount(self.col, minlength=self.num_cols)
        return CSR(_starts(counts), self.row[order], self.values[order], self.shape[0])

    def prune(self) -> CSR:
        """Without the entries that are zero."""
        keep = self.values != 0
        counts = torch.bincount(self.row[keep], minlength=self.shape[0])
        return CSR(_starts(counts), self.col[keep], self.values[keep], self.num_cols)

    def lower(self) -> CSR:
        """The entries strictly below the diagonal."""
        keep = self.col < self.row
        counts = torch.bincount(self.row[keep], minlength=self.shape[0])
        return CSR(_starts(counts), self.col[keep], self.values[keep], self.num_cols)


def _starts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def csr_matmul(a: CSR, x: Float[Tensor, "m c"]) -> Float[Tensor, "n c"]:
    """``A x`` for dense x; differentiable in both.

    Args:
        a: a sparse matrix.
        x: columns.
    """
    return x.new_zeros(a.shape[0], x.shape[1]).index_add(0, a.row, a.values[:, None] * x[a.col])


def check_product(a: CSR, b: CSR, who: str) -> None:
    """Whether A B exists.

    Args:
        a: the left factor.
        b: the right factor.
        who: who asks.

    Raises:
        ValueError: if the inner sizes, dtypes or devices differ.
    """
    if a.shape[1] != b.shape[0]:
        raise ValueError(f"{who} needs matrices that fit, got {a.shape} and {b.shape}")
    if a.values.dtype != b.values.dtype or a.values.device != b.values.device:
        raise ValueError(
            f"{who} needs one dtype and device, got {a.values.dtype} on {a.values.device} and {b.values.dtype} on "
            f"{b.values.device}"
        )


def flops_per_row(a: CSR, b: CSR) -> Int64[Tensor, "n"]:
    """``f_i = Σ_{k in row i of A} nnz(B_k)``: how many partial products row i of AB adds up.

    Args:
        a: the left factor.
        b: the right factor.
    """
    running = _starts(b.crow.diff()[a.col])
    return running[a.crow[1:]] - running[a.crow[:-1]]


def meetings(a: CSR, b: CSR, first: int, last: int) -> tuple[Int64[Tensor, "p"], Int64[Tensor, "p"]]:
    """Every entry ``first … last`` of A with all entries of the row of B that it scales.

    Args:
        a: the left factor.
        b: the right factor.
        first: first entry of A.
        last: one past the last entry.
    """
    k = a.col[first:last]
    start, count = b.crow[k], b.crow[k + 1] - b.crow[k]
    ends = count.cumsum(0)
    left = torch.repeat_interleave(torch.arange(len(k), device=k.device), count)
    # Positions run on within a row of B: subtract where its run began.
    right = torch.arange(len(left), device=k.device) + (start - ends + count)[left]
    return left + first, right


def portions(a: CSR, b: CSR, size: int = PORTION) -> Iterator[tuple[int, int]]:
    """Runs of entries of A with at most ``size`` partial products, or one entry.

    Args:
        a: the left factor.
        b: the right factor.
        size: how many.

    Yields:
        ``(first, last)`` entries of A.
    """
    yield from cut((b.crow.diff()[a.col]), size)


def cut(sizes: Int64[Tensor, "e"], budget: int) -> Iterator[tuple[int, int]]:
    """Pack consecutive items into runs whose sizes sum to the budget at most; what exceeds it alone is a run.

    Args:
        sizes: of the items.
        budget: of a run.

    Yields:
        ``(first, last)``.
    """
    ends = sizes.cumsum(0).cpu()
    first, used = 0, 0
    while first < len(ends):
        last = max(first + 1, int(torch.searchsorted(ends, used + budget, right=True)))
        yield first, last
        first, used = last, int(ends[last - 1])
