"""Orders in which a sparse product can be formed: row by row into a table, by sorting, inner and outer products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tangrams.operators.sparse_products.csr import CSR, PORTION, cut, flops_per_row, meetings
from tangrams.operators.sparse_products.hashing import Hash, HashAccumulator, high_bits
from tangrams.operators.sparse_products.windows import plan_windows


@dataclass(frozen=True)
class ProductStats:
    """What forming a product took.

    Attributes:
        flops: partial products, F.
        nnz: entries of the product.
        peak_entries: the most intermediate entries that were held: table slots and partial products.
        hash_probes: slots that were looked at.
        per_window: partial products of each window.
    """

    flops: int
    nnz: int
    peak_entries: int
    hash_probes: int = 0
    per_window: tuple[int, ...] = ()

    @property
    def compression_ratio(self) -> float:
        """F / nnz: how many partial products an entry adds up."""
        return self.flops / max(self.nnz, 1)


@runtime_checkable
class Dataflow(Protocol):
    """A way to form a product; all give the same entries, those that cancel to zero included."""

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B, without gradients.

        Args:
            a: the left factor.
            b: the right factor.
        """
        ...  # a protocol: whoever fits it writes the body


class HashDataflow:
    """Row by row into hash tables, a window of rows at a time [096].

    The three phases of the thesis: rows are packed into windows by their upper bounds, partial products are merged in a
    table, its entries are written back in order. Memory is that of a window, whatever the product.

    Args:
        window_entries: slots of a table; a power of two keeps tables at that size.
        load_factor: the largest share of a table that may fill.
        hash: where probing starts, :func:`high_bits` or :func:`low_bits`.
    """

    def __init__(self, window_entries: int = 1 << 19, load_factor: float = 0.5, *, hash: Hash = high_bits) -> None:
        self.window_entries, self.load_factor, self.hash = window_entries, load_factor, hash

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        plan = plan_windows(a, b, self.window_entries, self.load_factor)
        portion, rows, m = min(PORTION, self.window_entries), a.row, b.num_cols
        work = b.crow.diff()[a.col]
        probes, peak, keys, values = 0, 0, [], []
        for (first, last), size in zip(plan.windows, plan.table_sizes, strict=True):
            table = HashAccumulator(size, a.values, hash=self.hash)
            start, stop, most = int(a.crow[first]), int(a.crow[last]), 0
            for low, high in cut(work[start:stop], portion):
                left, right = meetings(a, b, start + low, start + high)
                most = max(most, len(left))
                table.insert_add((rows[left] - first) * m + b.col[right], a.values[left] * b.values[right])
            found, sums = table.drain()
            keys.append(found + first * m)
            values.append(sums)
            probes, peak = probes + table.probes, max(peak, size + most)
        made = assembled(a, b, keys, values)
        return made, ProductStats(sum(plan.flops), made.nnz, peak, probes, plan.flops)


class DenseDataflow:
    """Row by row into a dense accumulator, as many rows at a time as fit: Gustavson's algorithm.

    Args:
        window_entries: entries of the accumulator.
    """

    def __init__(self, window_entries: int = 1 << 19) -> None:
        self.window_entries = window_entries

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        n, m = a.shape[0], b.num_cols
        height = max(1, self.window_entries // max(m, 1))
        work, rows = b.crow.diff()[a.col], a.row
        peak, flops, keys, values = 0, [], [], []
        for first in range(0, n, height):
            last = min(first + height, n)
            sums = a.values.new_zeros((last - first) * m)
            seen = torch.zeros(len(sums), dtype=torch.bool, device=sums.device)
            start, stop, most = int(a.crow[first]), int(a.crow[last]), 0
            for low, high in cut(work[start:stop], PORTION):
                left, right = meetings(a, b, start + low, start + high)
                where = (rows[left] - first) * m + b.col[right]
                sums.index_add_(0, where, a.values[left] * b.values[right])
                seen[where] = True
                most = max(most, len(left))
            found = seen.nonzero()[:, 0]
            keys.append(found + first * m)
            values.append(sums[found])
            flops.append(int(work[start:stop].sum()))
            peak = max(peak, len(sums) + most)
        made = assembled(a, b, keys, values)
        return made, ProductStats(sum(flops), made.nnz, peak, per_window=tuple(flops))


class SortDataflow:
    """All partial products at once, sorted by place and added: expand, sort, compress."""

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        left, right = meetings(a, b, 0, a.nnz)
        made = _merged(a, b, a.row[left] * b.num_cols + b.col[right], a.values[left] * b.values[right])
        return made, ProductStats(len(left), made.nnz, len(left))


class OuterDataflow:
    """The outer product of every column of A with the same row of B, then one merge."""

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        columns = a.transpose()
        left, right = meetings(columns._replace(col=columns.row), b, 0, a.nnz)
        made = _merged(a, b, columns.col[left] * b.num_cols + b.col[right], columns.values[left] * b.values[right])
        return made, ProductStats(len(left), made.nnz, len(left))


class InnerDataflow:
    """Every row of A with every column of B, by looking up the columns' indices: for small or masked products."""

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        columns, m, inner = b.transpose(), b.num_cols, max(a.shape[1], 1)
        codes = columns.codes
        used = (columns.crow.diff() > 0).nonzero()[:, 0]
        keys, values, peak, flops = [], [], 0, 0
        portion = max(1, PORTION // max(len(used), 1))
        for low in range(0, a.nnz if len(used) else 0, portion):
            k, row = a.col[low : low + portion], a.row[low : low + portion]
            wanted = (used[None] * inner + k[:, None]).flatten()
            where = torch.searchsorted(codes, wanted).clamp_max(len(codes) - 1)
            hit = (codes[where] == wanted).nonzero()[:, 0]
            entry = torch.div(hit, len(used), rounding_mode="floor")
            keys.append(row[entry] * m + used[hit - entry * len(used)])
            values.append(a.values[low : low + portion][entry] * columns.values[where[hit]])
            peak, flops = max(peak, len(wanted)), flops + len(hit)
        keys, values = (torch.cat(parts) if parts else like[:0] for parts, like in ((keys, a.col), (values, a.values)))
        made = _merged(a, b, keys, values)
        return made, ProductStats(flops, made.nnz, peak)


class LibraryDataflow:
    """The product of the library that torch brings, MKL or cuSPARSE, with its columns sorted; floating point only.

    SciPy's product is as fast, but drops the places that cancel, whose gradients would be lost.
    """

    @staticmethod
    def serves(values: Tensor) -> bool:
        """Whether the values are of a kind that it multiplies.

        Args:
            values: of a factor.
        """
        there = values.is_cuda or (values.device.type == "cpu" and torch.backends.mkl.is_available())
        return there and values.dtype in (torch.float32, torch.float64)

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        flops = int(flops_per_row(a, b).sum())
        if not flops:  # empty factors confuse the libraries
            return assembled(a, b, [], []), ProductStats(0, 0, 0)
        made = torch.sparse.mm(a.to_torch(), b.to_torch())
        crow, col = made.crow_indices().to(a.col.dtype), made.col_indices().to(a.col.dtype)
        found = _with_sorted_columns(CSR(crow, col, made.values(), b.num_cols))
        return found, ProductStats(flops, found.nnz, found.nnz)


def _with_sorted_columns(found: CSR) -> CSR:
    falls = found.col.diff() <= 0
    starts = found.crow[1:-1]
    falls[starts[(starts > 0) & (starts < found.nnz)] - 1] = False  # from one row to the next
    if not bool(falls.any()):
        return found
    if not found.values.is_cuda:  # row by row, which is twice as fast as one sort of all places
        matrix = found.to_scipy()
        matrix.sort_indices()
        col = torch.from_numpy(matrix.indices).to(found.col.dtype)
        return found._replace(col=col, values=torch.from_numpy(matrix.data))
    row = found.row
    codes, order = torch.sort(row * found.num_cols + found.col)
    return found._replace(col=codes - row * found.num_cols, values=found.values[order])


class AutomaticDataflow:
    """The dataflow that was measured to be fastest for matrices of a kind.

    Compiled row by row where numba is installed and the values are real numbers on the CPU, else the library at hand.
    What neither takes (complex numbers, integers without numba) is sorted where there is little of it, and goes
    into a dense accumulator where rows are full and into hash tables where not.
    """

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        return self.choose(a, b).product(a, b)

    def choose(self, a: CSR, b: CSR) -> Dataflow:
        """Which one.

        Args:
            a: the left factor.
            b: the right factor.
        """
        from tangrams.operators.sparse_products.compiled import CompiledDataflow

        if CompiledDataflow.serves(a.values):
            return CompiledDataflow()
        if LibraryDataflow.serves(a.values):
            return LibraryDataflow()
        flops = int(flops_per_row(a, b).sum())
        if flops <= PORTION:
            return SortDataflow()
        return DenseDataflow() if 16 * flops >= a.shape[0] * b.num_cols else HashDataflow()


def _merged(a: CSR, b: CSR, keys: Tensor, values: Tensor) -> CSR:
    """Sorted by place, and added up where places repeat."""
    keys, order = torch.sort(keys, stable=True)
    distinct, where = torch.unique_consecutive(keys, return_inverse=True)
    sums = values.new_zeros(len(distinct)).index_add_(0, where, values[order])
    return assembled(a, b, [distinct], [sums])


def assembled(a: CSR, b: CSR, keys: list[Tensor], values: list[Tensor]) -> CSR:
    """A canonical matrix from sorted places.

    Args:
        a: the left factor, which gives the rows.
        b: the right factor, which gives the columns.
        keys: ``row · m + column`` of all entries, ascending, in portions.
        values: theirs.
    """
    n, m = a.shape[0], b.num_cols
    codes = torch.cat(keys) if keys else a.col[:0]
    sums = torch.cat(values) if values else a.values[:0]
    row = torch.div(codes, max(m, 1), rounding_mode="floor")
    counts = torch.bincount(row, minlength=n)
    return CSR(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), codes - row * m, sums, m)
