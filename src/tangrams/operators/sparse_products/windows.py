"""How the rows of a sparse product are shared out: windows of one table each, and tokens for workers."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from tangrams.operators.sparse_products.csr import CSR, check_product, cut, flops_per_row


@dataclass(frozen=True)
class ProductPlan:
    """Windows of consecutive rows, each with a table of its own [096].

    Attributes:
        windows: ``(first row, one past the last)``.
        flops: partial products of each window.
        upper: at most so many entries in each window, ``Σ min(f_i, m)``.
        table_sizes: slots of each window's table, a power of two.
    """

    windows: tuple[tuple[int, int], ...]
    flops: tuple[int, ...]
    upper: tuple[int, ...]
    table_sizes: tuple[int, ...]


def plan_windows(a: CSR, b: CSR, budget_entries: int = 1 << 20, load_factor: float = 0.5) -> ProductPlan:
    """Pack rows into windows whose tables keep to a budget; a row that exceeds it has a larger table to itself.

    Args:
        a: the left factor.
        b: the right factor.
        budget_entries: slots of a table.
        load_factor: the largest share of a table that may fill.

    Raises:
        ValueError: if the budget is below one, or the load not in (0, 1].
    """
    check_product(a, b, "plan_windows")
    if budget_entries < 1 or not 0 < load_factor <= 1:
        raise ValueError(
            f"plan_windows needs budget_entries ≥ 1 and load_factor in (0, 1], got {budget_entries} and {load_factor}"
        )
    flops = flops_per_row(a, b)
    upper = flops.clamp_max(b.num_cols)
    windows = tuple(cut(upper, max(1, int(budget_entries * load_factor))))
    sums = [int(upper[first:last].sum()) for first, last in windows]
    return ProductPlan(
        windows,
        tuple(int(flops[first:last].sum()) for first, last in windows),
        tuple(sums),
        tuple(1 << max(0, math.ceil(entries / load_factor) - 1).bit_length() for entries in sums),
    )


def static_loads(a: CSR, b: CSR, workers: int) -> Int64[Tensor, "workers"]:
    """Partial products of each worker where everyone has an equal run of rows, as in the first version of [096].

    Args:
        a: the left factor.
        b: the right factor.
        workers: how many.
    """
    running = torch.cat([torch.zeros(1, dtype=torch.int64), flops_per_row(a, b).cpu().cumsum(0)])
    borders = torch.linspace(0, a.shape[0], workers + 1, dtype=torch.float64).round().long()
    return running[borders].diff()


def token_loads(a: CSR, b: CSR, workers: int, tokens_per_worker: int = 32) -> Int64[Tensor, "workers"]:
    """Partial products of each worker where tokens are pulled by whoever is free, as in the second version of [096].

    A token is a run of entries of A of nearly equal work; long rows are split.

    Args:
        a: the left factor.
        b: the right factor.
        workers: how many.
        tokens_per_worker: the more, the finer.
    """
    work = b.crow.diff()[a.col].cpu()
    budget = max(1, int(work.sum()) // (workers * tokens_per_worker))
    loads = [0] * workers
    for first, last in cut(work, budget):
        heapq.heapreplace(loads, loads[0] + int(work[first:last].sum()))
    return torch.tensor(loads)


def traffic(a: CSR, b: CSR, nnz: int, entry_bytes: int = 12) -> dict[str, int]:
    """Bytes that each dataflow moves through main memory, by counting: every entry is an index and a value.

    * inner: every row of A is read for every column of B, and the other way about;
    * outer: A and B once, every partial product written and read again;
    * row-wise: A once, a row of B for every entry of A.

    Args:
        a: the left factor.
        b: the right factor.
        nnz: entries of the product, which all write.
        entry_bytes: of an index and a value.
    """
    flops = int(flops_per_row(a, b).sum())
    rows, cols = int((a.crow.diff() > 0).sum()), int(torch.bincount(b.col, minlength=b.num_cols).count_nonzero())
    return {
        "inner": entry_bytes * (cols * a.nnz + rows * b.nnz + nnz),
        "outer": entry_bytes * (a.nnz + b.nnz + 2 * flops + nnz),
        "row-wise": entry_bytes * (a.nnz + flops + nnz),
    }
