"""Farthest-first traversal."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tangrams.learners.nearest import Nearest
from tangrams.learners.selection.base import BatchSelector, Greedy
from tangrams.learners.selection.distances import nearest_labelled
from tangrams.learners.selection.falling import FallingScores
from tangrams.learners.selection.points import FeaturePoints, Points


class MaxDistance(BatchSelector):
    r"""Takes one by one the sample farthest from all that are labelled or chosen [007].

    .. math:: i = \arg\max_x \min_{s ∈ S} \lVert \phi(x) - \phi(s) \rVert

    Core-Set, the two-approximation of k-centre. Without labelled samples it starts with the one of largest norm.

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
        >>> MaxDistance(3).fit([[0.0], [9.0], [10.0], [4.0]]).indices_
        array([2, 0, 3])
    """

    def _begin(self, points: Points) -> Greedy:
        nearest = nearest_labelled(points)
        if isinstance(points, FeaturePoints):
            return _FallingDistances(points, nearest)
        return _Distances(points, nearest)


class _Distances(Greedy):
    def __init__(self, points: Points, nearest: Nearest) -> None:
        self._points, self._nearest = points, nearest
        self._empty = not len(points.labelled)

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        return self._points.diag[: self._points.num_pool] if self._empty else self._nearest.distance

    def add(self, i: int) -> None:
        index = torch.tensor([i], device=self._points.diag.device)
        self._nearest.attach(self._points.squared_distances(index)[:, 0], 0)
        self._empty = False


class _FallingDistances(FallingScores):
    def __init__(self, points: FeaturePoints, nearest: Nearest) -> None:
        self._diag = points.diag[: points.num_pool]
        self._empty = not len(points.labelled)
        super().__init__(points.pool, self._diag if self._empty else nearest.distance)

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        return self._diag if self._empty else super().scores(free)

    def add(self, i: int) -> None:
        if not self._empty:
            super().add(i)
            return
        # The first distances have nothing to fall from: the norms that chose the first sample are no bounds.
        self._empty = False
        self._scores = torch.full_like(self._diag, torch.inf)
        self._scores = self._lowered(slice(None), self.rows, self._taken(i)[None])
        self._lead(self._scores)

    def _taken(self, i: int) -> Tensor:
        return torch.cat([self.rows[i], self._diag[i, None]])

    def _lowered(self, index: Int64[Tensor, "m"] | slice, rows: Tensor, taken: Tensor) -> Tensor:
        squared = (rows @ taken[:, :-1].mT).mul_(-2).add_(self._diag[index, None]).add_(taken[:, -1]).clamp_min_(0)
        return torch.minimum(self._scores[index], squared.amin(1))
