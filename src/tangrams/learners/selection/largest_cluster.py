"""Largest cluster, maximum distance: spread out where the pool is dense and far from the labels."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tangrams.learners.selection.base import BatchSelector, Greedy
from tangrams.learners.selection.distances import NearestCentres
from tangrams.learners.selection.points import Points


class LargestClusterMaxDistance(BatchSelector):
    r"""Takes one by one the farthest sample of the largest cluster: LCMD, the paper's recommendation [007].

    Every sample of the pool belongs to the nearest labelled or chosen one. A cluster's size is the sum of the squared
    distances of its members to that centre; in the largest one the sample farthest from the centre is taken, becomes
    a centre, and draws over whoever is nearer to it. It neither chases outliers, as
    :class:`~tangrams.learners.selection.MaxDistance` does, nor needs draws, as
    :class:`~tangrams.learners.selection.KMeansPlusPlus`.

    The paper's method: labelled samples given (TP mode), on sketched gradients,
    ``TangentFeatures(model) >> KhatriRaoSketch(512)``. Without labelled samples it starts with the one of largest
    norm. Invariant to orthogonal maps and to scaling of the features.

    Args:
        batch_size: how many samples to choose.
        kernel: as :class:`~tangrams.learners.selection.BatchSelector` says.
        random_state: fixes the draws of a batch that cannot be filled.

    Attributes:
        indices_: the chosen samples in the order of their choice: ``(b,)``.
        scores_: the squared distance of each when it was chosen; of a first one its squared norm: ``(b,)``.
        status_: None, or what went wrong.

    Shape:
        ``X (n, d)``, ``labelled (m, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch.

    Example:
        >>> LargestClusterMaxDistance(1).fit([[3.0], [3.5], [-4.0], [10.0]], labelled=[[0.0], [10.5]]).indices_
        array([2])
    """

    def _begin(self, points: Points) -> Greedy:
        return _LargestCluster(points)


class _LargestCluster(NearestCentres):
    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        if not self.num_centres:
            return self.points.diag[: self.points.num_pool]
        distance, centre = self.nearest.distance, self.nearest.centre
        sizes = torch.bincount(centre, weights=distance.to(torch.float64), minlength=self.num_centres)
        return torch.where((sizes == sizes.max())[centre], distance, -torch.inf)
