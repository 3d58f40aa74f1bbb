"""A random batch: what every selection has to beat."""

from __future__ import annotations

import torch

from tangrams.learners.selection.base import BatchSelector, FixedScores
from tangrams.learners.selection.points import Points


class RandomSelection(BatchSelector):
    """Draws the batch uniformly, without replacement [007].

    Args:
        batch_size: how many samples to choose.
        kernel: ignored; so that it can stand in for any other selector.
        random_state: fixes the draw.

    Attributes:
        indices_: the chosen samples, ``(b,)``.
        scores_: a uniform number for each, ``(b,)``.
        status_: None.

    Shape:
        ``X (n, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch.

    Example:
        >>> sorted(RandomSelection(3).fit([[1.0], [2.0], [3.0]]).indices_.tolist())
        [0, 1, 2]
    """

    def _begin(self, points: Points) -> FixedScores:
        generator = torch.Generator().manual_seed(self.random_state)
        return FixedScores(torch.rand(points.num_pool, generator=generator, dtype=torch.float64).to(points.diag.device))
