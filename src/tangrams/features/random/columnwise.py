"""The role of a map with random columns: they are worked out a few at a time, so that their number is free."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.data.labelled import Labelled
from tangrams.features.base import FeatureMap
from tangrams.operators.dense_rows import PANEL_BYTES, accumulate_dtype, row_panels
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Column, Sketch

Samples = tuple[Tensor, ...]
"""Samples that were judged: tensors whose first axis is the sample."""


class ColumnwiseFeatures(FeatureMap):
    """A map whose columns can be had without the others.

    Products, Gram matrices and sketches of its rows go over panels of columns: neither all features nor all random
    weights are in memory unless dense rows are asked for. A member writes :attr:`num_features` (or :attr:`columns`),
    :meth:`panel` and, where samples are not vectors, :meth:`judge`.
    """

    in_features: int

    @abstractmethod
    def panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """The columns ``start … stop`` in the samples' dtype, differentiable in them."""

    @property
    def panel_unit(self) -> int:
        """Panels start at multiples of this many columns, where drawing is cheapest."""
        return 1

    @property
    def columns(self) -> tuple[Column, ...]:
        """One run."""
        return (Column("features", (self.num_features,), 0, self.num_features),)

    def judge(self, x: Any) -> Samples:
        """Vectors of ``in_features`` entries, in any event shape, float32 or wider.

        Args:
            x: a tensor, or ``Labelled``, whose targets are dropped.
        """
        return (as_vectors(x, self.in_features, type(self).__name__),)

    def panels(self, samples: Samples) -> Iterator[tuple[int, int, Tensor]]:
        """All columns in order, a panel at a time.

        Args:
            samples: as :meth:`judge` returns them.

        Yields:
            ``(start, stop, columns)``
        """
        affordable = PANEL_BYTES // (samples[0].dtype.itemsize * max(1, len(samples[0])))
        width = self.panel_unit * max(1, affordable // self.panel_unit)
        for start in range(0, self.num_features, width):
            stop = min(start + width, self.num_features)
            yield start, stop, self.panel(samples, start, stop)

    def forward(self, x: Any) -> Tensor:
        """Dense rows, ``(n, num_features)``, differentiable in ``x``."""
        return self.panel(self.judge(x), 0, self.num_features).to(_dtype(x))

    def rows(self, x: Any) -> Rows:
        """The rows of ``x``: no column is worked out before it is needed."""
        return self.lazy(tuple(part.detach() for part in self.judge(x)), _dtype(x))

    def lazy(self, samples: Samples, dtype: torch.dtype) -> ColumnwiseRows:
        """Rows of judged samples; a member with a faster Gram matrix returns rows of its own.

        Args:
            samples: as :meth:`judge` returns them, detached.
            dtype: of every answer.
        """
        return ColumnwiseRows(self, samples, dtype)


class ColumnwiseRows:
    """The rows of a :class:`ColumnwiseFeatures`.

    Args:
        phi: the map.
        samples: what it judged.
        dtype: of every answer.
    """

    def __init__(self, phi: ColumnwiseFeatures, samples: Samples, dtype: torch.dtype) -> None:
        self.phi = phi
        self.samples = samples
        self._dtype = dtype

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        return torch.Size((len(self.samples[0]), self.phi.num_features))

    @property
    def dtype(self) -> torch.dtype:
        """Of every answer."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """The samples'."""
        return self.samples[0].device

    def _zeros(self, columns: int) -> Tensor:
        return self.samples[0].new_zeros(self.shape[0], columns)

    def _panels(self) -> Iterator[tuple[int, int, Tensor]]:
        with torch.no_grad():
            yield from self.phi.panels(self.samples)

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``."""
        out = self._zeros(v.shape[1])
        for start, stop, panel in self._panels():
            out += panel @ v[start:stop].to(panel.dtype)
        return out.to(self.dtype)

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``."""
        out = u.new_empty(self.shape[1], u.shape[1], dtype=self.dtype)
        for start, stop, panel in self._panels():
            out[start:stop] = panel.mT @ u.to(panel.dtype)
        return out

    def dense(self) -> Float[Tensor, "N d"]:
        """All rows."""
        with torch.no_grad():
            return self.phi.panel(self.samples, 0, self.shape[1]).to(self.dtype)

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        out = self._zeros(1)[:, 0]
        for _, _, panel in self._panels():
            out += torch.linalg.vecdot(panel, panel)
        return out.to(self.dtype)

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``: panels of both sides where they are rows of one map."""
        if isinstance(other, ColumnwiseRows) and other.phi is self.phi:
            out = self._zeros(other.shape[0])
            for start, stop, panel in self._panels():
                with torch.no_grad():
                    right = panel if other is self else self.phi.panel(other.samples, start, stop)
                out += panel @ right.to(panel.dtype).mT
            return out.to(self.dtype)
        if other.shape[0] == 0:
            return self._zeros(0).to(self.dtype)
        return torch.cat([self.matmul(panel.mT) for _, _, panel in row_panels(other)], 1)

    def take(self, index: Int64[Tensor, "M"]) -> ColumnwiseRows:
        """Some rows, in that order."""
        return type(self)(self.phi, tuple(part[index] for part in self.samples), self.dtype)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> ColumnwiseRows:
        """The rows in another dtype or on another device."""
        dtype = dtype or self.dtype
        wide = accumulate_dtype(dtype)
        samples = tuple(
            part.to(device=device, dtype=wide if part.is_floating_point() else None) for part in self.samples
        )
        return type(self)(self.phi, samples, dtype)

    def project(self, sketch: Sketch) -> Float[Tensor, "N k"]:
        """``Φ Sᵀ``."""
        out = self._zeros(sketch.num_features)
        for start, _, panel in self._panels():
            sketch.accumulate(panel, start, out)
        return out.to(self.dtype)


def as_vectors(x: Any, in_features: int, who: str, name: str = "x") -> Float[Tensor, "n d"]:
    """Samples as finite rows of ``in_features`` entries, in at least float32.

    Args:
        x: ``(n, …)`` with that many entries in a sample.
        in_features: d.
        who: named in the refusal.
        name: of the argument.

    Raises:
        TypeError: if it is not a real floating-point tensor.
        ValueError: if a sample has another number of entries, or one is not finite.
    """
    if isinstance(x, Labelled):
        x = x.inputs
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{who} expects {name} as a real floating-point tensor (n, …), got {found}")
    if x.ndim < 2 or math.prod(x.shape[1:]) != in_features:
        raise ValueError(
            f"{who} expects {name} as n samples of {in_features} entries, got shape {tuple(x.shape)}: "
            "pass (n, …), x[None] for one sample"
        )
    if not bool(torch.isfinite(x).all()):
        row = int((~torch.isfinite(x.reshape(len(x), in_features))).any(1).nonzero()[0])
        raise ValueError(f"{who} got NaN or infinity in {name}, first in sample {row}: clean the data")
    return x.reshape(len(x), in_features).to(accumulate_dtype(x.dtype))


def _dtype(x: Any) -> torch.dtype:
    """That of the first tensor in what a map is called with."""
    while not isinstance(x, Tensor):
        x = x[0]
    return x.dtype
