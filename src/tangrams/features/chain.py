"""One map on the features of another, or a sketch of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tangrams.features.base import FeatureMap
from tangrams.features.deferred_rows import DeferredRows
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Column, Sketch


class Chain(FeatureMap):
    """``first >> second >> …``: each part on the features of the one before.

    A sketch is bound to the columns before it and projects the rows a few at a time, so neither the n × p features
    nor the p × k sketch is ever in memory. Nested chains are flattened: ``(a >> b) >> c`` and ``a >> (b >> c)`` have
    the same ``state_dict``.

    Args:
        first: a map of the data.
        parts: maps of features, or sketches, in the order they are applied.

    Shape:
        n samples → ``(n * rows_per_sample, k)``, k the features of the last part.

    Raises:
        TypeError: if a part is neither a map nor a sketch.
    """

    def __init__(self, first: FeatureMap, *parts: FeatureMap | Sketch) -> None:
        super().__init__()
        flat: list[FeatureMap | Sketch] = []
        for part in (first, *parts):
            if isinstance(part, Chain):
                flat.extend(part.parts)
            elif isinstance(part, FeatureMap | Sketch):
                flat.append(part)
            else:
                raise TypeError(f"a chain is made of feature maps and sketches, got {type(part).__name__}")
        if not isinstance(flat[0], FeatureMap):
            raise TypeError(f"a chain starts with a feature map, got {type(flat[0]).__name__}")
        self.maps = nn.ModuleDict({str(i): part for i, part in enumerate(flat) if isinstance(part, FeatureMap)})
        self._parts = tuple(None if isinstance(part, FeatureMap) else part for part in flat)

    @property
    def parts(self) -> tuple[FeatureMap | Sketch, ...]:
        """The parts, in the order they are applied."""
        return tuple(self.maps[str(i)] if part is None else part for i, part in enumerate(self._parts))  # type: ignore[misc]

    @property
    def bound(self) -> tuple[FeatureMap | Sketch, ...]:
        """The parts, each bound to the columns of the one before."""
        found: list[FeatureMap | Sketch] = []
        for part in self.parts:
            found.append(part.bind(_columns(found[-1])) if found else part)
        return tuple(found)

    @property
    def first(self) -> FeatureMap:
        """The map of the data."""
        return self.parts[0]  # type: ignore[return-value]

    @property
    def rows_per_sample(self) -> int:  # type: ignore[override]
        """The product of the maps'."""
        product = 1
        for part in self.parts:
            product *= part.rows_per_sample if isinstance(part, FeatureMap) else 1
        return product

    @property
    def takes_targets(self) -> bool:  # type: ignore[override]
        """The first map's."""
        return self.first.takes_targets

    @property
    def columns(self) -> tuple[Column, ...]:
        """Those of the last part."""
        return _columns(self.bound[-1])

    @property
    def num_features(self) -> int:
        """k, known before the network is called when the last part is a sketch."""
        return self.parts[-1].num_features

    def forward(self, x: Any) -> Tensor:
        """Dense features; differentiable when no part is a sketch."""
        if any(isinstance(part, Sketch) for part in self.parts):
            return self.rows(x).dense()
        for part in self.bound:
            x = part(x)  # type: ignore[operator]
        return x

    def rows(self, x: Any) -> Rows:
        """The rows of ``x``; worked out once, when first asked for."""
        rows = self.first.rows(x)
        previous: FeatureMap | Sketch = self.first
        for part in self.parts[1:]:
            bound = part.bind(_columns(previous))
            rows = _sketched(rows, bound) if isinstance(bound, Sketch) else _mapped(rows, bound)
            previous = bound
        return rows

    def outputs(self, x: Any) -> Tensor | None:
        """The first map's."""
        return self.first.outputs(x)

    def describe(self) -> dict[str, Any]:
        """The parts, as JSON data."""
        return {"class": type(self).__name__, "parts": [part.describe() for part in self.parts]}

    def extra_repr(self) -> str:
        """The parts in order."""
        return " >> ".join(type(part).__name__ for part in self.parts)


def _columns(part: FeatureMap | Sketch) -> tuple[Column, ...]:
    if isinstance(part, Sketch):
        return (Column(type(part).__name__, (part.num_features,), 0, part.num_features),)
    return part.columns


def _sketched(rows: Rows, sketch: Sketch) -> Rows:
    shape = (rows.shape[0], sketch.num_features)
    return DeferredRows(lambda: rows.project(sketch), shape, rows.dtype, rows.device)


def _mapped(rows: Rows, second: FeatureMap) -> Rows:
    def compute() -> Tensor:
        with torch.no_grad():
            return second(rows.dense())

    shape = (rows.shape[0] * second.rows_per_sample, second.num_features)
    return DeferredRows(compute, shape, rows.dtype, rows.device)
