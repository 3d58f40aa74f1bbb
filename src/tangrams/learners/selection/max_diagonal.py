"""The samples with the largest diagonal."""

from __future__ import annotations

from tangrams.learners.selection.base import BatchSelector, FixedScores
from tangrams.learners.selection.points import Points


class MaxDiagonal(BatchSelector):
    """Takes the samples with the largest kernel diagonal: on a posterior kernel those of largest variance [007].

    BALD for a Gaussian process; nothing keeps the batch from repeating itself. ``labelled`` changes nothing: what is
    known counts through the features (:class:`~tangrams.learners.selection.PosteriorFeatures`) or the kernel.

    Args:
        batch_size: how many samples to choose.
        kernel: as :class:`~tangrams.learners.selection.BatchSelector` says.
        random_state: fixes the draws of a batch that cannot be filled.

    Attributes:
        indices_: the chosen samples, the largest first: ``(b,)``.
        scores_: their diagonals, ``(b,)``.
        status_: None, or what went wrong.

    Shape:
        ``X (n, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch.

    Example:
        >>> MaxDiagonal(2).fit([[1.0], [-3.0], [2.0]]).indices_
        array([1, 2])
    """

    def _begin(self, points: Points) -> FixedScores:
        return FixedScores(points.diag[: points.num_pool])
