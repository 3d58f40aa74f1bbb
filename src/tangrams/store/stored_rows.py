"""Rows on disk: every product streams over the chunks of a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.dense_rows import DenseRows, row_panels
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Sketch
from tangrams.operators.times_transposed import times_transposed
from tangrams.store.codec import to_tensor

if TYPE_CHECKING:
    from tangrams.store.feature_store import FeatureStore
    from tangrams.store.layout import ArrayLayout

PANEL_BYTES = 1 << 28
"""How much of a large store a Gram matrix or a sketch holds at once, by default."""


@dataclass(frozen=True)
class Piece:
    """The wanted rows of one block.

    Attributes:
        block: its number.
        inside: where they are in the block.
        start: their first position among all wanted rows in the order of the store.
        stop: one past their last.
    """

    block: int
    inside: slice | np.ndarray
    start: int
    stop: int


class StoredRows:
    """The rows of a :class:`~tangrams.store.FeatureStore`, or some of them, as a source for a feature matrix.

    Products with vectors read every chunk once and hold one. ``gram`` of a store holds a panel of
    ``panel_bytes`` of one strip of columns and reads the store ``strip bytes / panel_bytes`` times, rounded up; the
    half above the diagonal only where both sides are the same. Half precision answers in float32. Pickling writes
    the address, not the data.

    Args:
        store: the store.
        index: which rows, in that order, repeats allowed; all by default.
        dtype: of the answers.
        device: of the answers.
        panel_bytes: how much ``gram`` and ``project`` hold; :data:`PANEL_BYTES` by default, or an eighth of a
            smaller store.

    Shape:
        ``(N, d)``

    Raises:
        IndexError: if a row is not in the store.
    """

    def __init__(
        self,
        store: FeatureStore,
        index: Int64[Tensor, "M"] | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        panel_bytes: int | None = None,
    ) -> None:
        self.store = store
        self.dtype = torch.promote_types(store.dtype, torch.float32) if dtype is None else dtype
        self.device = torch.device("cpu") if device is None else torch.device(device)
        size = store.shape.numel() * self.dtype.itemsize
        self.panel_bytes = min(PANEL_BYTES, size // 8) if panel_bytes is None else panel_bytes
        self._index = None if index is None else index.detach().cpu()
        total = store.shape[0]
        if self._index is not None and len(self._index) and not 0 <= self._index.min() <= self._index.max() < total:
            raise IndexError(f"rows {self._index.min()} … {self._index.max()} of a store of {total} rows")
        # Everything is computed in the order of the store and put into the wanted order at the end.
        self._order = None if self._index is None else torch.argsort(self._index, stable=True)
        if self._order is not None and torch.equal(self._order, torch.arange(len(self._order))):
            self._order = None

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        total, d = self.store.shape
        return torch.Size((total if self._index is None else len(self._index), d))

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``."""
        out = torch.zeros(self.shape[0], v.shape[1], dtype=self.dtype, device=self.device)
        for piece in self._pieces:
            for strip in range(self._strips):
                out[piece.start : piece.stop] += times_transposed(self._read(piece, strip), v[self._columns(strip)].mT)
        return self._wanted(out)

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``."""
        out = torch.zeros(self.shape[1], u.shape[1], dtype=self.dtype, device=self.device)
        u = u if self._order is None else u[self._order.to(u.device)]
        for piece in self._pieces:
            for strip in range(self._strips):
                out[self._columns(strip)] += self._read(piece, strip).mT @ u[piece.start : piece.stop]
        return out

    def dense(self) -> Float[Tensor, "N d"]:
        """All rows."""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for piece in self._pieces:
            here = slice(piece.start, piece.stop)
            rows = here if self._order is None else self._order[here].to(self.device)
            for strip in range(self._strips):
                out[rows, self._columns(strip)] = self._read(piece, strip)
        return out

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        out = torch.zeros(self.shape[0], dtype=self.dtype, device=self.device)
        for piece in self._pieces:
            for strip in range(self._strips):
                rows = self._read(piece, strip)
                out[piece.start : piece.stop] += torch.linalg.vecdot(rows, rows)
        return self._wanted(out)

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``."""
        if isinstance(other, DenseRows):
            return self.matmul(other.tensor.to(dtype=self.dtype, device=self.device).mT)
        if not isinstance(other, StoredRows):
            out = torch.empty(self.shape[0], other.shape[0], dtype=self.dtype, device=self.device)
            for start, stop, panel in row_panels(other, self.panel_bytes):
                out[:, start:stop] = self.matmul(panel.to(dtype=self.dtype, device=self.device).mT)
            return out
        if other is self:
            return self._own_gram()
        right = other.to(self.dtype, self.device)
        out = torch.zeros(self.shape[0], right.shape[0], dtype=self.dtype, device=self.device)
        if (self._strips, self._layout.strip) == (right._strips, right._layout.strip):
            for strip in range(self._strips):
                for start, stop, left in self._panels([strip]):
                    for piece in right._pieces:
                        out[start:stop, piece.start : piece.stop] += times_transposed(left, right._read(piece, strip))
        else:
            for start, stop, left in self._panels(range(self._strips)):
                for piece in right._pieces:
                    for strip in range(right._strips):
                        part = times_transposed(left[:, right._columns(strip)], right._read(piece, strip))
                        out[start:stop, piece.start : piece.stop] += part
        return self._wanted(right._wanted(out.mT).mT)

    def take(self, index: Int64[Tensor, "M"]) -> StoredRows:
        """Some rows, in that order."""
        index = index.detach().cpu()
        total = self.shape[0]
        if len(index) and not 0 <= index.min() <= index.max() < total:
            raise IndexError(f"rows {index.min()} … {index.max()} of {total}")
        return self._like(index if self._index is None else self._index[index], self.dtype, self.device)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> StoredRows:
        """The same rows, answered in another dtype or on another device."""
        return self._like(self._index, dtype or self.dtype, device or self.device)

    def project(self, sketch: Sketch) -> Float[Tensor, "N k"]:
        """``Φ Sᵀ``, reading the store once."""
        parts = [sketch.project(panel) for _, _, panel in self._panels(range(self._strips))]
        if not parts:
            return torch.zeros(0, sketch.num_features, dtype=self.dtype, device=self.device)
        return self._wanted(torch.cat(parts))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_pieces"}

    def __repr__(self) -> str:
        return f"StoredRows({tuple(self.shape)}, {self.dtype}, {self.store.url!r})"

    @property
    def _layout(self) -> ArrayLayout:
        return self.store.spec.features_layout

    @property
    def _strips(self) -> int:
        return self._layout.strips

    def _columns(self, strip: int) -> slice:
        return self._layout.columns(strip)

    def _like(self, index: Tensor | None, dtype: torch.dtype, device: torch.device) -> StoredRows:
        return StoredRows(self.store, index, dtype=dtype, device=device, panel_bytes=self.panel_bytes)

    @cached_property
    def _pieces(self) -> list[Piece]:
        """The wanted rows block by block."""
        self.store.check_complete()
        height = self._layout.block_rows
        if self._index is None:
            n = self.shape[0]
            starts = range(0, n, height)
            return [
                Piece(s // height, slice(stop - s), s, stop) for s, stop in ((s, min(s + height, n)) for s in starts)
            ]
        index = (self._index if self._order is None else self._index[self._order]).numpy()
        blocks, starts, counts = np.unique(index // height, return_index=True, return_counts=True)
        pieces = []
        for block, start, stop in zip(blocks, starts, starts + counts, strict=True):
            inside = index[start:stop] - block * height
            if (np.diff(inside) == 1).all():
                inside = slice(int(inside[0]), int(inside[-1]) + 1)
            pieces.append(Piece(int(block), inside, int(start), int(stop)))
        return pieces

    def _read(self, piece: Piece, strip: int) -> Tensor:
        """The wanted rows of one chunk."""
        columns = self._columns(strip)
        chunk = self.store.read_features(piece.block, strip)
        rows = chunk[piece.inside, : columns.stop - columns.start]
        return to_tensor(rows, self._layout.dtype).to(dtype=self.dtype, device=self.device)

    def _panels(self, strips: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
        """Neighbouring pieces together, as many as ``panel_bytes`` hold, at least one.

        Args:
            strips: the neighbouring strips of columns to read.

        Yields:
            ``(start, stop, rows)``
        """
        first = self._columns(strips[0]).start
        width = self._columns(strips[-1]).stop - first
        most = self.panel_bytes // max(1, width * self.dtype.itemsize)
        groups: list[list[Piece]] = []
        for piece in self._pieces:
            if groups and piece.stop - groups[-1][0].start <= most:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        for group in groups:
            start, stop = group[0].start, group[-1].stop
            panel = torch.empty(stop - start, width, dtype=self.dtype, device=self.device)
            for piece in group:
                for strip in strips:
                    columns = self._columns(strip)
                    here = panel[piece.start - start : piece.stop - start, columns.start - first : columns.stop - first]
                    here.copy_(self._read(piece, strip))
            yield start, stop, panel

    def _own_gram(self) -> Tensor:
        n = self.shape[0]
        out = torch.zeros(n, n, dtype=self.dtype, device=self.device)
        for strip in range(self._strips):
            for start, stop, left in self._panels([strip]):
                out[start:stop, start:stop] += times_transposed(left, left)
                for piece in self._pieces:
                    if piece.start >= stop:
                        out[start:stop, piece.start : piece.stop] += times_transposed(left, self._read(piece, strip))
        _mirror(out)
        return self._wanted(self._wanted(out).mT)

    def _wanted(self, rows: Tensor) -> Tensor:
        """Rows in the order of the store → in the wanted order."""
        if self._order is None:
            return rows
        out = torch.empty_like(rows)
        out[self._order.to(rows.device)] = rows
        return out


def _mirror(square: Tensor, height: int = 1024) -> None:
    """Copy the upper triangle of a square matrix onto the lower, in place."""
    n = square.shape[0]
    for start in range(0, n, height):
        stop = min(start + height, n)
        square[stop:, start:stop] = square[start:stop, stop:].mT
        corner = square[start:stop, start:stop]
        corner.copy_(corner.triu() + corner.triu(1).mT)
