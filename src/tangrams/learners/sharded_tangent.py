"""A tangent component per shard or task, so that each can be forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.data.streams import data_shards
from tangrams.learners.base import as_features, as_samples, as_targets, num_samples
from tangrams.learners.tangent_classifier import TangentClassifier
from tangrams.learners.tangent_composition import TangentComposition
from tangrams.learners.tangent_ridge import TangentRidgeClassifier, positions_of
from tangrams.nn.tangent import TangentVector
from tangrams.operators import FeatureMatrix


class ShardedTangentClassifier(ClassifierMixin, BaseEstimator):
    r"""Trains a tangent vector on every shard by itself and predicts with their mean [009].

    Shards share one base point, so that training them is parallel, prediction costs one forward pass, and forgetting a
    shard is exact and free: the answer is, bit for bit, that of never having trained it. A sample is forgotten by
    training its shard alone again, 1/S of the cost of training anew, or in closed form where the estimator has
    ``forget``. :meth:`partial_fit` adds a component per call: a task of a class-, task- or data-incremental stream.

    Args:
        estimator: a :class:`~tangrams.learners.TangentClassifier` that is cloned for every shard; one with defaults
            when None.
        n_shards: S, of :meth:`fit`.
        random_state: fixes the shards.

    Attributes:
        classes_: the labels, sorted.
        composition_: the components, named ``"0"``, ``"1"``, …, as a :class:`~tangrams.learners.TangentComposition`.

    Shape:
        ``X (n, …)`` → labels ``(n,)``.

    Raises:
        ValueError: from ``fit``, if there are fewer samples than shards.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, estimator: TangentClassifier | None = None, *, n_shards: int = 5, random_state: int = 0) -> None:
        self.estimator = estimator
        self.n_shards = n_shards
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> ShardedTangentClassifier:
        """Train a component on every shard; samples are dealt to shards at random."""
        x = self._samples(X, reset=True)
        y = self._labels(x, y, None)
        n = num_samples(x)
        if not 1 <= self.n_shards <= n:
            raise ValueError(f"{type(self).__name__} needs 1 ≤ n_shards ≤ {n} samples, got {self.n_shards}")
        self._start()
        for shard in data_shards(n, self.n_shards, seed=int(self.random_state)):
            self._add(x, y, shard)
        self._seen = n
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> ShardedTangentClassifier:
        """Add a component trained on these samples alone.

        Args:
            X: samples.
            y: labels.
            classes: all labels there will ever be; needed in the first call.

        Raises:
            ValueError: if the first call has no classes, or a later one others.
        """
        first = not hasattr(self, "composition_")
        if first and classes is None:
            raise ValueError(f"the first call of {type(self).__name__}.partial_fit needs classes: all there will be")
        if not first and classes is not None and not np.array_equal(np.unique(np.asarray(classes)), self.classes_):
            raise ValueError(f"classes={list(classes)} is not what the first call had: {self.classes_.tolist()}")
        x = self._samples(X, reset=first)
        y = self._labels(x, y, classes if first else self.classes_)
        if first:
            self._start()
        self._add(x, y, torch.arange(num_samples(x)))
        self._seen += num_samples(x)
        return self

    def forget_shard(self, shard: int) -> ShardedTangentClassifier:
        """Drop a component and everything of it; the weights of the others become equal again.

        Args:
            shard: its number.

        Raises:
            ValueError: if it is not there.
        """
        check_is_fitted(self, "composition_")
        if str(shard) not in self.composition_:
            raise ValueError(f"no shard {shard}: there are {', '.join(self.composition_.components) or 'none'}")
        self.composition_.remove(str(shard))
        del self._shards[str(shard)]
        return self

    def forget_samples(self, index: Sequence[int] | np.ndarray | Tensor) -> ShardedTangentClassifier:
        """Forget training samples, by their position in ``fit`` (counted on through ``partial_fit``).

        A shard that loses its last sample is dropped.

        Args:
            index: which.

        Raises:
            ValueError: if one was never there, is forgotten already, or is no position.
        """
        check_is_fitted(self, "composition_")
        gone = positions_of(self, index)
        there = np.concatenate([shard.ids for shard in self._shards.values()]) if self._shards else gone[:0]
        unknown = np.setdiff1d(gone, there)
        if len(unknown):
            raise ValueError(f"{type(self).__name__} does not hold the samples {unknown[:5].tolist()}")
        for name, shard in list(self._shards.items()):
            out = np.isin(shard.ids, gone)
            if out.all():
                self.forget_shard(int(name))
            elif out.any():
                self.composition_.replace(name, shard.forget(out))
        return self

    def logits(self, X: Any) -> np.ndarray:
        """One per class, ``(n, C)``, in one forward pass."""
        check_is_fitted(self, "composition_")
        return self.composition_.logits(self._samples(X, reset=False))

    def decision_function(self, X: Any) -> np.ndarray:
        """The logits ``(n, C)``; for two classes the second's minus the first's, ``(n,)``."""
        logits = self.logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, X: Any, classes: Any = None) -> np.ndarray:
        """The class with the largest logit, among some where the task is known."""
        check_is_fitted(self, "composition_")
        return self.composition_.predict(self._samples(X, reset=False), classes)

    def _samples(self, X: Any, *, reset: bool) -> Any:
        bare = self.estimator is None or self.estimator.backbone is None
        return as_features(self, X, reset=reset) if bare else as_samples(self, X, reset=reset)

    def _labels(self, x: Any, y: Any, classes: Any) -> np.ndarray:
        """The labels, judged; sets ``classes_``."""
        y = as_targets(self, x, y)
        check_classification_targets(y)
        given = classes if classes is not None else getattr(self.estimator, "classes", None)
        self.classes_ = np.unique(y if given is None else np.asarray(given))
        return y

    def _start(self) -> None:
        self._shards: dict[str, _Shard] = {}
        self._seen = 0
        self._made = 0
        if hasattr(self, "composition_"):
            del self.composition_

    def _add(self, x: Any, y: np.ndarray, index: Tensor) -> None:
        model: Any = clone(TangentClassifier() if self.estimator is None else self.estimator)
        model.set_params(classes=self.classes_)
        part = x.rows.take(index).dense() if isinstance(x, FeatureMatrix) else x[index.to(x.device)]
        shard = _Shard(model.fit(part, y[index.numpy()]), index.numpy() + self._seen, part, y[index.numpy()])
        name = str(self._made)
        self._made += 1
        if not hasattr(self, "composition_"):
            self.composition_ = TangentComposition(model)
        self.composition_.add(name, model.tangent_)
        self._shards[name] = shard


@dataclass
class _Shard:
    """What a component was trained on: needed to train it again without a sample."""

    model: TangentClassifier
    ids: np.ndarray
    x: Tensor
    y: np.ndarray

    def forget(self, out: np.ndarray) -> TangentVector:
        """The component without some of its samples."""
        keep = ~out
        self.ids, self.y = self.ids[keep], self.y[keep]
        self.x = self.x[torch.from_numpy(keep).to(self.x.device)]
        if isinstance(self.model, TangentRidgeClassifier):
            self.model.forget(np.flatnonzero(out))
        else:
            self.model.fit(self.x, self.y)
        return self.model.tangent_
