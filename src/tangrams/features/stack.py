"""Feature maps side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tangrams.features.base import FeatureMap
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Column, Sketch


class Stack(FeatureMap):
    """``a | b | …``: the columns of all parts next to each other; Gram matrices add.

    ``a | b >> c`` reads as ``a | (b >> c)``. Nested stacks are flattened.

    Args:
        parts: maps of the same data with the same number of rows per sample.

    Shape:
        n samples → ``(n * rows_per_sample, Σ num_features)``

    Raises:
        TypeError: if a part is not a map.
    """

    def __init__(self, *parts: FeatureMap) -> None:
        super().__init__()
        flat: list[FeatureMap] = []
        for part in parts:
            if not isinstance(part, FeatureMap):
                raise TypeError(f"a stack is made of feature maps, got {type(part).__name__}")
            flat.extend(part.parts if isinstance(part, Stack) else [part])  # type: ignore[arg-type]
        self.parts = nn.ModuleList(flat)

    @property
    def rows_per_sample(self) -> int:  # type: ignore[override]
        """That of every part.

        Raises:
            ValueError: if the parts disagree.
        """
        counts = {part.rows_per_sample for part in self.parts}
        if len(counts) != 1:
            raise ValueError(f"parts of a stack have different numbers of rows per sample: {sorted(map(str, counts))}")
        return counts.pop()  # type: ignore[return-value]

    @property
    def takes_targets(self) -> bool:  # type: ignore[override]
        """Whether any part does."""
        return any(part.takes_targets for part in self.parts)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The parts' columns, prefixed by the number of the part."""
        found, offset = [], 0
        for i, part in enumerate(self.parts):
            for column in part.columns:  # type: ignore[union-attr]
                start, stop = offset + column.start, offset + column.stop
                found.append(Column(f"{i}.{column.name}", column.shape, start, stop))
            offset += part.num_features  # type: ignore[operator]
        return tuple(found)

    def forward(self, x: Any) -> Tensor:
        """Dense features."""
        return torch.cat([part(x) for part in self.parts], dim=1)

    def rows(self, x: Any) -> Rows:
        """The rows of ``x``."""
        return StackedRows(tuple(part.rows(x) for part in self.parts))  # type: ignore[operator]

    def outputs(self, x: Any) -> Tensor | None:
        """Those of the first part that has a network."""
        for part in self.parts:
            found = part.outputs(x)  # type: ignore[operator]
            if found is not None:
                return found
        return None

    def describe(self) -> dict[str, Any]:
        """The parts, as JSON data."""
        return {"class": type(self).__name__, "parts": [part.describe() for part in self.parts]}  # type: ignore[operator]


@dataclass(frozen=True)
class StackedRows:
    """Rows whose columns are those of several sources.

    Attributes:
        parts: the sources, with the same number of rows.

    Raises:
        ValueError: if they have different numbers of rows.
    """

    parts: Sequence[Rows]

    def __post_init__(self) -> None:
        if len({part.shape[0] for part in self.parts}) != 1:
            raise ValueError(f"stacked rows differ in number: {[part.shape[0] for part in self.parts]}")

    @property
    def shape(self) -> torch.Size:
        """``(N, Σ d)``."""
        return torch.Size((self.parts[0].shape[0], sum(part.shape[1] for part in self.parts)))

    @property
    def dtype(self) -> torch.dtype:
        """The widest of the parts'."""
        dtype = self.parts[0].dtype
        for part in self.parts[1:]:
            dtype = torch.promote_types(dtype, part.dtype)
        return dtype

    @property
    def device(self) -> torch.device:
        """The first part's."""
        return self.parts[0].device

    def _same(self, answer: Tensor) -> Tensor:
        return answer.to(dtype=self.dtype, device=self.device)

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``."""
        pieces = v.split([part.shape[1] for part in self.parts])
        products = [
            self._same(part.matmul(piece.to(dtype=part.dtype, device=part.device)))
            for part, piece in zip(self.parts, pieces, strict=True)
        ]
        return torch.stack(products).sum(0)

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``."""
        return torch.cat([self._same(part.t_matmul(u.to(dtype=part.dtype, device=part.device))) for part in self.parts])

    def dense(self) -> Float[Tensor, "N d"]:
        """All rows."""
        return torch.cat([self._same(part.dense()) for part in self.parts], dim=1)

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms: the sum of the parts'."""
        return torch.stack([self._same(part.diag()) for part in self.parts]).sum(0)

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``: the sum of the parts' where both are stacked alike."""
        if other is self:
            return torch.stack([self._same(part.gram(part)) for part in self.parts]).sum(0)
        if isinstance(other, StackedRows) and [p.shape[1] for p in other.parts] == [p.shape[1] for p in self.parts]:
            pairs = zip(self.parts, other.parts, strict=True)
            return torch.stack([self._same(mine.gram(theirs)) for mine, theirs in pairs]).sum(0)
        return self.matmul(self._same(other.dense()).mT)

    def take(self, index: Int64[Tensor, "M"]) -> StackedRows:
        """Some rows, in that order."""
        return StackedRows(tuple(part.take(index) for part in self.parts))

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> StackedRows:
        """The rows in another dtype or on another device."""
        return StackedRows(tuple(part.to(dtype, device) for part in self.parts))

    def project(self, sketch: Sketch) -> Float[Tensor, "N k"]:
        """``Φ Sᵀ``: the sum over parts of their columns' share."""
        out, offset = None, 0
        for part in self.parts:
            share = self._same(part.project(sketch.part(offset, offset + part.shape[1])))
            out = share if out is None else out + share
            offset += part.shape[1]
        assert out is not None  # a stack has parts
        return out
