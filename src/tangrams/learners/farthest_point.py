"""Farthest-point clustering on a kernel."""

from __future__ import annotations

from typing import Any, Literal, no_type_check

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import check_is_fitted

from tangrams.learners.base import HasGram, KernelMixin, as_array, as_targets, num_samples, take_samples
from tangrams.learners.nearest import Nearest


class FarthestPointClustering(KernelMixin, ClusterMixin, BaseEstimator):
    """Clusters around heads, each head the sample least like its head so far [022].

    The first head is the first sample of the most similar pair, and everybody is attached to it. Then, until there are
    enough: the sample least similar to its own head becomes a head and draws over whoever is more similar to it. The
    order of the heads matters: early clusters are of the common and easy, tiny late ones of what fits nowhere.

    With :class:`~tangrams.kernels.LabelledPseudoNTK` two samples are similar where learning one teaches the other.
    Farthest-point clustering works within classes there: :meth:`fit_classes`.

    Args:
        n_clusters: how many heads: a number, or a fraction of the samples (of each class in :meth:`fit_classes`).
        kernel: as :class:`~tangrams.learners.base.KernelMixin` says: what similarity is.

    Attributes:
        labels_: each sample's cluster, ``(n,)``; clusters are numbered in the order of their heads.
        heads_: the sample that heads each cluster, ``(M,)``.
        similarity_: each sample's similarity to its head, ``(n,)``; a head's is to itself.
        cluster_similarity_: the mean of it over the members other than the head, NaN where there are none, ``(M,)``.

    Shape:
        ``X (n, d)`` → labels ``(n,)``.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, n_clusters: int | float = 8, *, kernel: HasGram | Literal["precomputed"] | None = None) -> None:
        self.n_clusters = n_clusters
        self.kernel = kernel

    def fit(self, X: Any, y: Any = None) -> FarthestPointClustering:
        """Cluster all samples together; ``y`` is ignored."""
        K = self._fit_gram(X).numpy()
        heads, labels = farthest_point_heads(K, self.count(len(K)))
        self._keep(heads, labels, K[np.arange(len(K)), heads[labels]])
        return self

    def fit_classes(self, X: Any, y: Any) -> FarthestPointClustering:
        """Cluster every class by itself: no cluster mixes labels. Only inner products within classes are taken."""
        if isinstance(self.kernel, str) and self.kernel == "precomputed":
            samples: Any = self._fit_gram(X)
            self.X_fit_ = None
        else:
            samples = self.X_fit_ = self._read_samples(X, reset=True)
        y = as_targets(self, range(num_samples(samples)), y)
        all_heads, labels, similarity = [], np.empty(len(y), dtype=np.int64), np.empty(len(y))
        for label in np.unique(y):
            index = np.flatnonzero(y == label)
            if self.X_fit_ is None:
                K = samples[index][:, index].numpy()
            else:
                K = self._checked(self._gram(take_samples(samples, index), None)).numpy()
            heads, own = farthest_point_heads(K, self.count(len(index)))
            labels[index] = own + len(all_heads)
            similarity[index] = K[np.arange(len(index)), heads[own]]
            all_heads.extend(index[heads].tolist())
        self._keep(np.array(all_heads), labels, similarity)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The cluster of the most similar head."""
        check_is_fitted(self, "heads_")
        return self._cross_gram(X).numpy()[:, self.heads_].argmax(1)

    def members(self, cluster: int) -> np.ndarray:
        """The samples of a cluster, the most similar to its head first."""
        check_is_fitted(self, "heads_")
        inside = np.flatnonzero(self.labels_ == cluster)
        return inside[np.argsort(-self.similarity_[inside], kind="stable")]

    def count(self, n: int) -> int:
        """How many clusters n samples are put into."""
        M = self.n_clusters
        if isinstance(M, float) and not M.is_integer():
            if not 0 < M < 1:
                raise ValueError(f"FarthestPointClustering expects a number ≥ 1 or a fraction of n_clusters, got {M}")
            return max(1, round(M * n))
        if M < 1:
            raise ValueError(f"FarthestPointClustering expects n_clusters ≥ 1, got {M}")
        return min(int(M), n)

    def _keep(self, heads: np.ndarray, labels: np.ndarray, similarity: np.ndarray) -> None:
        self.heads_, self.labels_, self.similarity_ = heads, labels, similarity
        others = np.ones(len(labels), dtype=bool)
        others[heads] = False
        sizes = np.bincount(labels[others], minlength=len(heads))
        sums = np.bincount(labels[others], weights=similarity[others], minlength=len(heads))
        self.cluster_similarity_ = np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan)


def farthest_point_heads(K: Float[np.ndarray, "n n"], count: int) -> tuple[Int[np.ndarray, "M"], Int[np.ndarray, "n"]]:
    """The heads in the order they were made, and each sample's cluster; ties go to the first index.

    Args:
        K: similarities.
        count: M, at most n.
    """
    n = len(K)
    if count >= n:
        return np.arange(n), np.arange(n)
    apart = -torch.from_numpy(np.asarray(K, dtype=np.float64))
    first = int(apart.clone().fill_diagonal_(torch.inf).argmin()) // n
    nearest, heads = Nearest(n, apart), []
    while len(heads) < count:
        head = int(nearest.distance.argmax()) if heads else first
        nearest.attach(apart[:, head], len(heads))
        nearest.centre[head] = len(heads)
        nearest.distance[head] = -torch.inf  # heads never move
        heads.append(head)
    return np.array(heads), nearest.centre.numpy()


def self_maximal(K: Any) -> np.ndarray:
    """Which samples are most similar to themselves; the others are dominated, another one teaches them better.

    Args:
        K: similarities, ``(n, n)``; raw, as a cosine's diagonal is always largest.
    """
    K = as_array(K)
    return K.diagonal() >= K.max(1)
