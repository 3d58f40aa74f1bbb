"""How far every sample of a pool is from what is labelled or chosen: what the distance methods share."""

from __future__ import annotations

import torch

from tangrams.learners.nearest import Nearest
from tangrams.learners.selection.base import Greedy
from tangrams.learners.selection.points import Points

_AT_ONCE = 256
"""Labelled samples whose distances to the pool are held at once."""


def nearest_labelled(points: Points) -> Nearest:
    """The nearest labelled sample of every sample of the pool, numbered from 0, by squared distance.

    Args:
        points: the pool and the labelled samples.
    """
    nearest = Nearest(points.num_pool, points.diag)
    first = 0
    for some in points.labelled.split(_AT_ONCE):
        if len(some):
            nearest.attach_all(points.squared_distances(some), first)
            first += len(some)
    return nearest


class NearestCentres(Greedy):
    """Every sample's nearest labelled or chosen one, kept up to date; a member writes the scores.

    Args:
        points: the pool and the labelled samples.
    """

    def __init__(self, points: Points) -> None:
        self.points = points
        self.nearest = nearest_labelled(points)
        self.num_centres = len(points.labelled)

    def add(self, i: int) -> None:
        """Sample i becomes a centre."""
        index = torch.tensor([i], device=self.points.diag.device)
        self.nearest.attach(self.points.squared_distances(index)[:, 0], self.num_centres)
        self.nearest.distance[i] = 0
        self.num_centres += 1
