"""Products with large structured matrices: Gaussian kernels at equal error, and sparse times sparse."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.harness import Conditions, PeakMemory, Row, alternate
from tangrams.claims.c047_sparse_kernel_matvec import planted_clusters
from tangrams.claims.c096_sparse_matrix_product import banded, graph, uniform
from tangrams.kernels.gaussian_products import (
    LSHSearch,
    SparseGaussianKernelOperator,
    gaussian_product,
)
from tangrams.operators.sparse_products import CSR, AutomaticDataflow, HashDataflow, flops_per_row

N, SIGMA, EPS = 20_000, 1.5, 0.1


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
    matrices = {"R-MAT 13": graph(13, 0), "uniform 20,000": uniform(20_000), "banded 20,000": banded(20_000)}
    return [*kernel_products(conditions), *(spgemm(conditions, name, a) for name, a in matrices.items())]


def peak_mib(run: Callable[[], Any]) -> int:
    """MiB that the process grows by at most while something runs."""
    with PeakMemory() as memory:
        run()
    return round(memory.mib)


def kernel_products(conditions: Conditions) -> list[Row]:
    """A Gaussian kernel of O(n) mass times a vector, to an error of a tenth of its norm: first and further products."""
    queries, keys = planted_clusters(N, 0)
    x = torch.randn(N, 1, generator=torch.Generator().manual_seed(0))

    def build() -> SparseGaussianKernelOperator:
        return SparseGaussianKernelOperator.build(queries, keys, SIGMA, eps=EPS, search=LSHSearch())

    operator = build()
    exact = gaussian_product(queries, keys, x, SIGMA)
    error = float((operator.product(x) - exact).norm() / x.norm())
    dense = {"dense, in blocks": lambda: gaussian_product(queries, keys, x, SIGMA), **keops_rivals(queries, keys, x)}
    found = []
    for name, ours in (("search and first product", lambda: build() @ x), ("further product", lambda: operator @ x)):
        rivals = {"tangrams": ours, **dense}
        seconds = alternate(rivals, dict.fromkeys(rivals, 3), conditions.timer)
        notes = {"error / ‖x‖": round(error, 3), "samples": operator.num_samples, "pairs": len(operator.near_pairs)}
        notes |= {f"MiB, {rival}": peak_mib(run) for rival, run in rivals.items()}
        best = min(taken for rival, taken in seconds.items() if rival != "tangrams")
        title = f"Gaussian kernel, n = {N}, {name}"
        found.append(Row("products", title, seconds, best / seconds["tangrams"], notes=notes))
    return found


def keops_rivals(queries: Tensor, keys: Tensor, x: Tensor) -> dict[str, Callable[[], object]]:
    """KeOps, which compiles its product when it is first called."""
    if not peers.installed("pykeops"):
        return {}
    from pykeops.torch import LazyTensor  # type: ignore[import-not-found]

    def run() -> object:
        difference = LazyTensor(queries[:, None]) - LazyTensor(keys[None])
        return (-(difference**2).sum(-1) / (2 * SIGMA**2)).exp() @ x

    return {"KeOps": run}


def spgemm(conditions: Conditions, name: str, a: CSR) -> Row:
    """The square of a sparse matrix against SciPy's, columns sorted in both."""
    theirs = a.to_scipy()

    def scipy_sorted() -> object:
        product = theirs @ theirs
        product.sort_indices()
        return product

    default = AutomaticDataflow().choose(a, a)
    rivals: dict[str, Callable[[], object]] = {
        "tangrams": lambda: default.product(a, a),
        "hash": lambda: HashDataflow().product(a, a),
        "SciPy": scipy_sorted,
        "SciPy, unsorted": lambda: theirs @ theirs,
    }
    seconds = alternate(rivals, {"tangrams": 5, "hash": 2, "SciPy": 5, "SciPy, unsorted": 5}, conditions.timer)
    notes = {"default": type(default).__name__, "partial products": int(flops_per_row(a, a).sum())}
    notes |= {f"MiB, {rival}": peak_mib(run) for rival, run in rivals.items() if rival != "SciPy, unsorted"}
    return Row("products", f"spgemm, {name} squared", seconds, seconds["SciPy"] / seconds["tangrams"], notes=notes)
