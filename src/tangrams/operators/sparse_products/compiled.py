"""The row-wise product compiled by numba, on all threads; numba is the extra ``tangrams[fast]``."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor

from tangrams.operators.sparse_products.csr import CSR, flops_per_row
from tangrams.operators.sparse_products.dataflows import ProductStats


class CompiledDataflow:
    """Row by row into an accumulator that every thread keeps for itself; rows are shared out as tokens of equal work.

    Raises:
        ImportError: if numba is not installed, from :meth:`product`.
    """

    @staticmethod
    def serves(values: Tensor) -> bool:
        """Whether numba is there, and the values are real numbers on the CPU.

        Args:
            values: of a factor.
        """
        ours = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64, torch.int64, torch.int32)
        return ours and importlib.util.find_spec("numba") is not None

    def product(self, a: CSR, b: CSR) -> tuple[CSR, ProductStats]:
        """A B.

        Args:
            a: the left factor.
            b: the right factor.
        """
        threads = torch.get_num_threads()  # before numba, which may share OpenMP's, is loaded
        try:
            import numba  # type: ignore[import-not-found] # noqa: F401 - the module below may be there without it

            from tangrams.operators.sparse_products import numba_rows
        except ImportError as error:
            raise ImportError("CompiledDataflow needs numba: pip install 'tangrams[fast]'") from error
        flops = flops_per_row(a, b)
        tokens = _tokens(flops, 8 * threads)
        left, right = ([t.detach().numpy() for t in (f.crow, f.col, f.values)] for f in (a, b))
        with _threads(threads):
            found = numba_rows.product(left, right, b.num_cols, tokens.numpy())
        crow, col, values = (torch.from_numpy(part) for part in found)
        made = CSR(crow, col, values, b.num_cols)
        peak = threads * b.num_cols
        return made, ProductStats(int(flops.sum()), made.nnz, peak, per_window=tuple(_sums(flops, tokens)))


def _tokens(flops: Tensor, count: int) -> Tensor:
    """Borders of ``count`` runs of rows of nearly equal work."""
    ends = flops.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    marks = torch.arange(1, count, dtype=torch.int64) * total // count
    inner = torch.searchsorted(ends, marks, right=True)
    return torch.cat([torch.zeros(1, dtype=torch.int64), inner, torch.tensor([len(flops)])]).cummax(0).values


def _sums(flops: Tensor, borders: Tensor) -> list[int]:
    running = torch.cat([torch.zeros(1, dtype=torch.int64), flops.cumsum(0)])
    return running[borders].diff().tolist()


class _threads:
    """numba on as many threads as torch has, and back; where both use OpenMP, numba's number becomes torch's."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> None:
        import numba  # type: ignore[import-not-found]
        from numba.core.config import NUMBA_NUM_THREADS  # type: ignore[import-not-found, attr-defined]

        self.before = numba.get_num_threads()
        numba.set_num_threads(min(self.count, NUMBA_NUM_THREADS))

    def __exit__(self, *error: object) -> None:
        import numba  # type: ignore[import-not-found]

        numba.set_num_threads(self.before)
        torch.set_num_threads(self.count)
