"""The role of a feature map: data → feature matrix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tangrams.operators import FeatureMatrix
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Column, Sketch

if TYPE_CHECKING:
    from tangrams.store import FeatureStore


class FeatureMap(nn.Module, ABC):
    """A map from what a model is called with to rows of features.

    A member writes :meth:`forward`, :attr:`columns` and :meth:`rows`; everything else follows.

    Shape:
        n samples → ``(n * rows_per_sample, num_features)``, sample-major.
    """

    rows_per_sample: int = 1
    takes_targets: bool = False
    """Whether ``x`` has to be ``Labelled(inputs, targets)``."""

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The named runs that make up the feature columns."""

    @property
    def num_features(self) -> int:
        """d, the number of feature columns."""
        return self.columns[-1].stop if self.columns else 0

    @abstractmethod
    def forward(self, x: Any) -> Tensor:
        """Dense rows, ``(n * rows_per_sample, num_features)``."""

    @abstractmethod
    def rows(self, x: Any) -> Rows:
        """The rows of ``x`` as a lazy source."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What this map is, as JSON data: class, options, seeds, and the fingerprint of any model it reads."""

    def matrix(self, x: Any) -> FeatureMatrix:
        """The feature matrix of ``x``, lazy: nothing dense is formed until asked for."""
        return FeatureMatrix(rows=self.rows(x))

    def gram(self, x: Any, y: Any | None = None) -> Tensor:
        """``Φ(x) Φ(y)ᵀ`` (``y = x`` when absent): ``(n * r, m * r)``."""
        rows = self.rows(x)
        return rows.gram(rows if y is None else self.rows(y))

    def diag(self, x: Any) -> Tensor:
        """Squared norms of the rows: ``(n * r,)``."""
        return self.rows(x).diag()

    def outputs(self, x: Any) -> Tensor | None:
        """What the network behind the map answers at ``x``, ``(n, C)``; None for a map without one."""
        return None

    def extract(
        self,
        dataset: Any,
        path: str | Path,
        *,
        batch_size: int | None = None,
        dtype: str = "float32",
        block_size: int | None = None,
        ids: Sequence[str] | Sequence[int] | None = None,
        seed: int = 0,
        progress: Any | None = None,
    ) -> FeatureStore:
        """Compute the features of a data set once, into a store that survives interruption.

        Args:
            dataset: a ``torch.utils.data.Dataset`` or anything the map takes.
            path: where the store is made or continued.
            batch_size: samples per call of the map.
            dtype: of the stored features.
            block_size: samples per unit of work, written whole or not at all.
            ids: names of the samples; their numbers by default.
            seed: recorded, and set before each block.
            progress: called with the blocks done and in all.
        """
        from tangrams.features.extract import extract

        return extract(
            self,
            dataset,
            path,
            batch_size=batch_size,
            dtype=dtype,
            block_size=block_size,
            ids=ids,
            seed=seed,
            progress=progress,
        )

    def bind(self, columns: tuple[Column, ...]) -> FeatureMap:
        """This map over the given input columns; a map that does not depend on them is itself."""
        return self

    def __rshift__(self, other: FeatureMap | Sketch) -> FeatureMap:
        """``phi >> psi``: ψ on the features of φ. A sketch projects row panels; φ(x) is never formed whole."""
        from tangrams.features.chain import Chain

        return Chain(self, other)

    def __or__(self, other: FeatureMap) -> FeatureMap:
        """``phi | psi``: the columns of both, side by side."""
        from tangrams.features.stack import Stack

        return Stack(self, other)
