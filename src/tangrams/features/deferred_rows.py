"""Rows of a few features that are worked out once, when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators import DenseRows
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Sketch


class DeferredRows:
    """Dense rows behind a function; shape and dtype are known before it is called.

    Args:
        compute: gives the dense rows.
        shape: their shape.
        dtype: their dtype.
        device: their device.
    """

    def __init__(
        self, compute: Callable[[], Tensor], shape: tuple[int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        self._compute: Callable[[], Tensor] | None = compute
        self._dense: DenseRows | None = None
        self._shape = torch.Size(shape)
        self._dtype = dtype
        self._device = device

    def __getstate__(self) -> dict[str, Any]:
        dense = self.materialised()
        return {**self.__dict__, "_compute": None, "_dense": dense}

    def __deepcopy__(self, memo: dict[int, Any]) -> DeferredRows:
        return self

    def materialised(self) -> DenseRows:
        """The rows, computed at the first call."""
        if self._dense is None:
            assert self._compute is not None  # it is dropped only after the rows are there
            self._dense = DenseRows(self._compute().to(dtype=self._dtype, device=self._device))
            self._compute = None
        return self._dense

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        return self._shape

    @property
    def dtype(self) -> torch.dtype:
        """Of every answer."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """Of every answer."""
        return self._device

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``."""
        return self.materialised().matmul(v)

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``."""
        return self.materialised().t_matmul(u)

    def dense(self) -> Float[Tensor, "N d"]:
        """All rows."""
        return self.materialised().dense()

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        return self.materialised().diag()

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``."""
        mine = self.materialised()
        if other is self:
            return mine.gram(mine)
        return mine.gram(other.materialised() if isinstance(other, DeferredRows) else other)

    def take(self, index: Int64[Tensor, "M"]) -> Rows:
        """Some rows, in that order."""
        return self.materialised().take(index)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Rows:
        """The rows in another dtype or on another device."""
        return self.materialised().to(dtype, device)

    def project(self, sketch: Sketch) -> Float[Tensor, "N k"]:
        """``Φ Sᵀ``."""
        return self.materialised().project(sketch)
