"""Greedy choice where scores only fall: most of the pool waits until it might win."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tangrams.learners.selection.base import Greedy

_SHARE = 16
_LEAST = 512


class FallingScores(Greedy):
    """Scores that only fall as the batch grows, kept up to date for the samples in the lead alone.

    A score that has not been brought up to date is an upper bound. While the best of the leading samples is above
    all bounds of the others, it is the best of all; when it is not, the others catch up, with everything chosen in
    the meantime at once: one matrix product instead of many passes over the pool. The choices are those of the plain
    loop. After Minoux's accelerated greedy algorithm (1978).

    A member writes :meth:`_taken` and :meth:`_lowered`.

    Args:
        rows: features of the pool.
        scores: what each sample brings now.
    """

    def __init__(self, rows: Float[Tensor, "n d"], scores: Float[Tensor, "n"]) -> None:
        self.rows = rows
        self._scores = scores
        self._pending: list[Tensor] = []
        self._lead(scores)

    @abstractmethod
    def _taken(self, i: int) -> Float[Tensor, "w"]:
        """What the others need to know of sample i, which is being chosen."""

    @abstractmethod
    def _lowered(
        self, index: Int64[Tensor, "m"] | slice, rows: Float[Tensor, "m d"], taken: Float[Tensor, "k w"]
    ) -> Float[Tensor, "m"]:
        """The scores of some samples after k more choices."""

    def _lead(self, scores: Float[Tensor, "n"]) -> None:
        n = len(scores)
        self._leaders = scores.topk(min(n, max(_LEAST, n // _SHARE))).indices
        self._leading = torch.zeros(n, dtype=torch.bool, device=scores.device)
        self._leading[self._leaders] = True
        self._leading_rows = self.rows[self._leaders]

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Upper bounds, exact for whoever is the best."""
        if self._pending:
            possible = self._scores.masked_fill(~free, -torch.inf)
            best = possible[self._leaders].max()
            if not bool(best > possible.masked_fill_(self._leading, -torch.inf).max()):
                lowered = self._lowered(slice(None), self.rows, torch.stack(self._pending))
                self._scores = torch.where(self._leading, self._scores, lowered)
                self._pending = []
                self._lead(self._scores.masked_fill(~free, -torch.inf))
        return self._scores

    def add(self, i: int) -> None:
        """Take sample i, and bring those in the lead up to date."""
        taken = self._taken(i)
        self._pending.append(taken)
        self._scores[self._leaders] = self._lowered(self._leaders, self._leading_rows, taken[None])
