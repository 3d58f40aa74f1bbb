"""A batch from features on disk: what ``tangrams select`` runs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch

from tangrams.learners.selection.base import BatchSelector
from tangrams.learners.selection.max_diagonal import MaxDiagonal
from tangrams.learners.selection.posterior import PosteriorFeatures
from tangrams.learners.selection.unit_diagonal import UnitDiagonal
from tangrams.operators import CountSketch, FeatureMatrix
from tangrams.store import FeatureStore


class StoredChoice(NamedTuple):
    """A batch of stored samples, the first choice first.

    Attributes:
        indices: their numbers in the pool's store.
        ids: their names there.
        scores: what each scored, NaN where it was drawn at random.
        status: None, or what went wrong.
    """

    indices: list[int]
    ids: list[str]
    scores: list[float]
    status: str | None


def select_stored(
    selector: BatchSelector, pool: str | Path, labelled: str | Path | None = None, *, sketch: int = 512, seed: int = 0
) -> StoredChoice:
    """Choose a batch of the samples in a store.

    Features are read once, brought to ``sketch`` numbers where there are more, and scaled to a mean squared norm of
    one over the labelled samples (over the pool without them), so that a selector's noise means the same for all.
    :class:`MaxDiagonal`, which cannot see labelled samples by itself, goes by the variance that they leave.

    Args:
        selector: chooses; fitted in place.
        pool: the store of the pool.
        labelled: the store of the labelled samples, extracted by the same map.
        sketch: the largest number of features that selections work on.
        seed: of the sketch.

    Raises:
        ValueError: if the stores were made by different maps, or hold several rows per sample.
    """
    stores = [FeatureStore.open(path) for path in (pool, labelled) if path is not None]
    for store in stores:
        if store.rows_per_sample != 1:
            raise ValueError(
                f"{store.url} has {store.rows_per_sample} rows per sample: extract with output='sum' or 'trace'"
            )
    if len({repr(store.header.get("map")) for store in stores}) > 1 or len({store.shape[1] for store in stores}) > 1:
        raise ValueError(f"{pool} and {labelled} hold features of different maps: extract both by the same one")
    rows = [_narrow(store, sketch, seed) for store in stores]
    scale = UnitDiagonal().fit(rows[-1])
    features = [scale.transform(part) for part in rows]
    if labelled is not None and isinstance(selector, MaxDiagonal):
        posterior = PosteriorFeatures().fit(features[1])
        features = [posterior.transform(part) for part in features]
    selector.fit(features[0], labelled=features[1] if labelled is not None else None)
    names, indices = stores[0].ids, selector.indices_.tolist()
    ids = [str(int(name) if isinstance(name, torch.Tensor) else name) for name in (names[i] for i in indices)]
    return StoredChoice(indices, ids, selector.scores_.tolist(), selector.status_)


def _narrow(store: FeatureStore, size: int, seed: int) -> FeatureMatrix:
    if size < 1:
        raise ValueError(f"a sketch needs at least one feature, got {size}")
    matrix = store.matrix()
    if matrix.shape[1] <= size:
        return matrix
    sketch = CountSketch(size, seed=seed).bind(store.columns)
    return FeatureMatrix(rows=matrix.rows.project(sketch))
