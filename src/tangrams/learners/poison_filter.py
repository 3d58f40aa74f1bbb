"""Find samples that contradict their own class."""

from __future__ import annotations

from typing import Any, Literal, no_type_check

import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator
from torch import Tensor

from tangrams.learners.base import HasGram, KernelMixin, as_targets, num_samples, take_samples
from tangrams.learners.farthest_point import FarthestPointClustering, farthest_point_heads


class PoisonFilter(KernelMixin, BaseEstimator):
    """Flags the samples in the smallest farthest-point clusters of their class [022].

    Within each class samples are clustered by the kernel's *cosine*: what fits nowhere becomes the head of a cluster of
    its own or of a tiny one. Samples are ranked by the size of their cluster, the smallest first, ties by the mean
    cosine with the rest of their class, and a share of all is flagged. With
    :class:`~tangrams.kernels.LabelledPseudoNTK` these are mostly wrong labels. A loss ranking finds more of them while
    the network has not memorised them, and fewer once it has; on digits and MNIST a vote of pixel neighbours finds more
    than either.

    Args:
        contamination: the share of samples that is flagged, in (0, 1).
        n_clusters: clusters per class: a number, or a fraction of the class.
        kernel: as :class:`~tangrams.learners.base.KernelMixin` says.

    Attributes:
        suspicion_: minus the size of the sample's cluster, plus less than one for how little it is like its class:
            larger is more suspicious, ``(n,)``.
        flagged_: the most suspicious, ``(n,)`` booleans; ties in the order of the samples.

    Shape:
        ``X (n, d)``, ``y (n,)``.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        contamination: float = 0.1,
        *,
        n_clusters: int | float = 0.1,
        kernel: HasGram | Literal["precomputed"] | None = None,
    ) -> None:
        self.contamination = contamination
        self.n_clusters = n_clusters
        self.kernel = kernel

    def fit(self, X: Any, y: Any) -> PoisonFilter:
        """Rank and flag labelled samples.

        Args:
            X: samples; ``Labelled`` where the kernel takes it.
            y: their classes.

        Raises:
            ValueError: if the contamination is not in (0, 1), or ``y`` does not fit.
        """
        if not 0 < self.contamination < 1:
            raise ValueError(f"PoisonFilter expects a contamination in (0, 1), got {self.contamination}")
        if isinstance(self.kernel, str) and self.kernel == "precomputed":
            samples: Any = self._fit_gram(X)
            self.X_fit_ = None
        else:
            samples = self.X_fit_ = self._read_samples(X, reset=True)
        y = as_targets(self, range(num_samples(samples)), y)
        counting = FarthestPointClustering(self.n_clusters)
        self.suspicion_ = np.empty(len(y))
        for label in np.unique(y):
            index = np.flatnonzero(y == label)
            if self.X_fit_ is None:
                K = samples[index][:, index]
            else:
                K = self._checked(self._gram(take_samples(samples, index), None))
            cosine = _cosine(K)
            _, clusters = farthest_point_heads(cosine, counting.count(len(index)))
            size = np.bincount(clusters)[clusters]
            own = (cosine.sum(1) - cosine.diagonal()) / max(len(index) - 1, 1)
            self.suspicion_[index] = -size + (1 - own.clip(-1, 1)) / 2.001
        flagged = np.argsort(-self.suspicion_, kind="stable")[: round(self.contamination * len(y))]
        self.flagged_ = np.zeros(len(y), dtype=bool)
        self.flagged_[flagged] = True
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


def _cosine(K: Tensor) -> Float[np.ndarray, "n n"]:
    """The kernel's cosine; a sample without a norm is like no other."""
    norms = K.diagonal().clamp_min(0).sqrt()
    norms = norms.where(norms > 0, float("inf"))
    return (K / norms[:, None] / norms[None, :]).numpy()
