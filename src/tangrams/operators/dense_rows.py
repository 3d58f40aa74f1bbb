"""Rows held as one dense tensor, and a view of some columns of any rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Sketch
from tangrams.operators.times_transposed import times_transposed

PANEL_BYTES = 1 << 26
"""How much of a source that is not dense is held at once, by default."""


def row_panels(rows: Rows, panel_bytes: int = PANEL_BYTES) -> Iterator[tuple[int, int, Tensor]]:
    """Read a source once, from top to bottom.

    Args:
        rows: the source.
        panel_bytes: the most that a panel holds; at least one row.

    Yields:
        ``(start, stop, dense rows)``
    """
    n, d = rows.shape
    height = max(1, panel_bytes // max(1, d * rows.dtype.itemsize))
    if height >= n:
        yield 0, n, rows.dense()
        return
    for start in range(0, n, height):
        stop = min(start + height, n)
        yield start, stop, rows.take(torch.arange(start, stop, device=rows.device)).dense()


def accumulate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Where inner products are summed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


class DenseRows:
    """Rows that are already a tensor; it is detached, never copied.

    Args:
        tensor: the rows.

    Shape:
        ``(N, d)``

    Raises:
        ValueError: if the tensor is not a real floating-point matrix.
    """

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dim() != 2 or not tensor.dtype.is_floating_point:
            raise ValueError(
                f"DenseRows takes a floating-point matrix (N, d), got {tensor.dtype} of shape {tuple(tensor.shape)}"
            )
        self.tensor = tensor.detach()

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        return self.tensor.shape

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's."""
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        """The tensor's."""
        return self.tensor.device

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``."""
        return times_transposed(self.tensor, v.mT)

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``."""
        return self.tensor.mT @ u

    def dense(self) -> Float[Tensor, "N d"]:
        """The tensor itself."""
        return self.tensor

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        wide = self.tensor.to(accumulate_dtype(self.dtype))
        return torch.linalg.vecdot(wide, wide).to(self.dtype)

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``, summed in at least float32."""
        wide = accumulate_dtype(self.dtype)
        left = self.tensor.to(wide)
        if other is self:
            return times_transposed(left, left).to(self.dtype)
        if isinstance(other, DenseRows):
            return times_transposed(left, other.tensor.to(wide)).to(self.dtype)
        out = left.new_empty(self.shape[0], other.shape[0])
        for start, stop, panel in row_panels(other):
            out[:, start:stop] = times_transposed(left, panel.to(wide))
        return out.to(self.dtype)

    def take(self, index: Int64[Tensor, "M"]) -> DenseRows:
        """Some rows, in that order."""
        return DenseRows(self.tensor[index])

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> DenseRows:
        """The rows in another dtype or on another device."""
        return DenseRows(self.tensor.to(dtype=dtype, device=device))

    def project(self, sketch: Sketch) -> Float[Tensor, "N k"]:
        """``Φ Sᵀ``."""
        return sketch.project(self.tensor)

    def __repr__(self) -> str:
        return f"DenseRows({tuple(self.shape)}, {self.dtype})"


@dataclass(frozen=True, eq=False)
class ColumnRows:
    """Some columns of any rows; dense work goes panel by panel.

    Attributes:
        rows: the source.
        index: which columns, in that order, repeats allowed.
    """

    rows: Rows
    index: Int64[Tensor, "k"]

    @property
    def shape(self) -> torch.Size:
        """``(N, k)``."""
        return torch.Size((self.rows.shape[0], len(self.index)))

    @property
    def dtype(self) -> torch.dtype:
        """The source's."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        """The source's."""
        return self.rows.device

    def matmul(self, v: Tensor) -> Tensor:
        """``Φ v``: the vector is scattered to all columns."""
        return self.rows.matmul(v.new_zeros(self.rows.shape[1], v.shape[1]).index_add_(0, self.index, v))

    def t_matmul(self, u: Tensor) -> Tensor:
        """``Φᵀ u``."""
        return self.rows.t_matmul(u)[self.index]

    def dense(self) -> Tensor:
        """``(N, k)``, reading the source once."""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for start, stop, panel in row_panels(self.rows):
            out[start:stop] = panel[:, self.index]
        return out

    def diag(self) -> Tensor:
        """Squared norms of the rows."""
        return DenseRows(self.dense()).diag()

    def gram(self, other: Rows) -> Tensor:
        """``Φ Ψᵀ``."""
        dense = DenseRows(self.dense())
        return dense.gram(dense if other is self else other)

    def take(self, index: Tensor) -> ColumnRows:
        """Some rows, in that order."""
        return ColumnRows(self.rows.take(index), self.index)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> ColumnRows:
        """The rows in another dtype or on another device."""
        return ColumnRows(self.rows.to(dtype, device), self.index.to(device=device))

    def project(self, sketch: Sketch) -> Tensor:
        """``Φ Sᵀ``."""
        return sketch.project(self.dense())
