"""The seeding of k-means++."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tangrams.learners.selection.base import BatchSelector, Greedy
from tangrams.learners.selection.distances import NearestCentres
from tangrams.learners.selection.points import Points


class KMeansPlusPlus(BatchSelector):
    r"""Draws one by one, with probability proportional to the squared distance from the labelled and chosen [007].

    BADGE for regression when the features are :class:`~tangrams.learners.selection.ACSGradientFeatures`. Without
    labelled samples the first is uniform.

    Args:
        batch_size: how many samples to choose.
        kernel: as :class:`~tangrams.learners.selection.BatchSelector` says.
        random_state: fixes every draw.

    Attributes:
        indices_: the chosen samples in the order of their choice: ``(b,)``.
        scores_: the squared distance of each when it was drawn, ``(b,)``.
        status_: None, or what went wrong: the pool holds nothing that is not labelled or chosen.

    Shape:
        ``X (n, d)``, ``labelled (m, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch.

    Example:
        >>> KMeansPlusPlus(1).fit([[0.0], [0.0], [5.0]], labelled=[[0.0]]).indices_
        array([2])
    """

    def _begin(self, points: Points) -> Greedy:
        return _Draws(points, torch.Generator().manual_seed(self.random_state))


class _Draws(NearestCentres):
    def __init__(self, points: Points, generator: torch.Generator) -> None:
        super().__init__(points)
        self._generator = generator

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        distance = self.nearest.distance
        return distance if self.num_centres else torch.ones_like(distance)

    def choose(self, free: Bool[Tensor, "n"]) -> tuple[int | None, float]:
        scores = self.scores(free).masked_fill(~free, 0).nan_to_num(nan=0.0).to(torch.float64)
        cumulative = scores.cumsum(0)
        total = float(cumulative[-1])
        if not total > 0:
            return None, 0.0
        # In (0, total]: the first sample whose cumulative weight reaches it has a positive weight of its own.
        mark = total * (1 - torch.rand((), generator=self._generator, dtype=torch.float64))
        i = int(torch.searchsorted(cumulative, mark.to(cumulative.device).clamp_max(cumulative[-1])))
        return i, float(scores[i])
