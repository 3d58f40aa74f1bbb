"""A learning rate that is raised until its runs stop falling, and watched from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise


class StepSize:
    """The rate of short runs of an optimiser [092].

    Before training it grows by a fifth while the loss of a run falls at every step, and is then cut to 0.7. While
    training each run scores 1 if its loss fell at every step, −1 if it ended above its start, else 0; after each
    ``interval`` runs the rate is cut by a tenth if 29 % or more scored −1, or else raised by a twentieth if 70 % or
    more scored 1.

    Args:
        value: the rate.
        interval: how many runs are judged together.
        adapts: whether runs change it while training.
    """

    def __init__(self, value: float, *, interval: int = 50, adapts: bool = True) -> None:
        self.value = value
        self.interval = interval
        self.adapts = adapts
        self._scores: list[int] = []

    def tune(self, run: Callable[[float], Sequence[float]], *, most: int = 100) -> None:
        """Find the rate.

        Args:
            run: rate → the losses of a run with it.
            most: how many times it may grow.
        """
        for _ in range(most):
            grows = score(run(self.value)) == 1
            self.value *= 1.2
            if not grows:
                break
        self.value *= 0.7

    def record(self, losses: Sequence[float]) -> None:
        """Judge a run, and change the rate when it is time to.

        Args:
            losses: of the run, step by step.
        """
        self._scores.append(score(losses))
        if len(self._scores) < self.interval:
            return
        if self.adapts and self._scores.count(-1) >= 0.29 * len(self._scores):
            self.value *= 0.9
        elif self.adapts and self._scores.count(1) >= 0.7 * len(self._scores):
            self.value *= 1.05
        self._scores = []


def score(losses: Sequence[float]) -> int:
    """1 if the losses fall at every step, −1 if the last is above the first, else 0; 0 for fewer than two."""
    if len(losses) < 2:
        return 0
    if all(b < a for a, b in pairwise(losses)):
        return 1
    return 0 if losses[-1] <= losses[0] else -1
