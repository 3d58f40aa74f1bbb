"""The role of a batch selector, and the greedy loop that most of them share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator
from torch import Tensor

from tangrams.learners.base import HasGram, as_features, as_samples, num_samples
from tangrams.learners.selection.points import Points, as_points


class BatchSelector(BaseEstimator, ABC):
    """Chooses which samples of a pool to label next.

    ``fit(pool)`` chooses by the pool alone (the paper's P mode); ``fit(pool, labelled=train)`` as if the labelled
    samples had been chosen before (TP mode). Where a choice is impossible, because the features leave nothing to
    gain or are not finite, the rest of the batch is drawn at random and ``status_`` says so.

    A member writes :meth:`_begin`.

    Args:
        batch_size: how many samples to choose.
        kernel: whose inner products: None for those of feature rows (read through
            :func:`~tangrams.learners.as_features`), or an object with ``gram`` and ``diag``, which is given the
            samples as they are.
        random_state: fixes every draw.

    Attributes:
        indices_: the chosen samples of the pool, the first choice first: ``(b,)``.
        scores_: what each scored when it was chosen, NaN for those drawn at random: ``(b,)``.
        status_: None, or what went wrong and when.

    Shape:
        ``X (n, d)``, ``labelled (m, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch.
    """

    compute_dtype: torch.dtype | None = None
    """What a member computes in; None: the dtype of the rows, at least float32."""

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, batch_size: int = 64, *, kernel: HasGram | None = None, random_state: int = 0) -> None:
        self.batch_size = batch_size
        self.kernel = kernel
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, *, labelled: Any = None) -> BatchSelector:
        """Choose a batch of the pool ``X``; ``y`` is ignored.

        Args:
            X: the pool: feature rows, a feature matrix, a store; samples, where there is a kernel.
            y: ignored.
            labelled: the labelled samples, as ``X``; None to choose by the pool alone.
        """
        self._choose(self._points(X, labelled))
        return self

    def _points(self, X: Any, labelled: Any, *others: Any) -> Points:
        given = [self._read(X, reset=True)]
        given += [None if part is None else self._read(part, reset=False) for part in (labelled, *others)]
        n, b = num_samples(given[0]), self.batch_size
        if not 1 <= b <= n:
            raise ValueError(
                f"{type(self).__name__} cannot choose batch_size={b} samples of a pool with n_samples={n}: "
                f"ask for 1 to {n}"
            )
        return as_points(given, self.kernel, self.compute_dtype)

    def _read(self, X: Any, *, reset: bool) -> Any:
        if self.kernel is None:
            return as_features(self, X, reset=reset)
        if not isinstance(self.kernel, HasGram):
            raise ValueError(
                f"{type(self).__name__} expects kernel=None or an object with gram and diag, got {self.kernel!r}"
            )
        return as_samples(self, X, reset=reset)

    def _choose(self, points: Points) -> None:
        greedy = self._begin(points)
        free = torch.ones(points.num_pool, dtype=torch.bool, device=points.diag.device)
        chosen: list[int] = []
        scores: list[float] = []
        while len(chosen) < self._forward(points.num_pool):
            i, score = greedy.choose(free)
            if i is None:
                break
            greedy.add(i)
            free[i] = False
            chosen.append(i)
            scores.append(score)
        kept = greedy.keep(chosen, self.batch_size)
        self._settle([chosen[k] for k in kept], [scores[k] for k in kept], points.num_pool)

    def _forward(self, n: int) -> int:
        """How many samples are chosen before any are given up."""
        return self.batch_size

    def _settle(self, chosen: list[int], scores: list[float], n: int) -> None:
        """Fill up at random what could not be chosen, and publish."""
        self.status_: str | None = None
        missing = self.batch_size - len(chosen)
        if missing:
            rest = np.setdiff1d(np.arange(n), chosen)
            drawn = np.random.default_rng(self.random_state).choice(rest, missing, replace=False).tolist()
            self.status_ = f"nothing left to gain after {len(chosen)} samples: {missing} drawn at random"
            chosen, scores = chosen + drawn, scores + [float("nan")] * missing
        self.indices_ = np.array(chosen, dtype=np.int64)
        self.scores_ = np.array(scores, dtype=np.float64)

    @abstractmethod
    def _begin(self, points: Points) -> Greedy:
        """The scores of the pool before anything is chosen, the labelled samples taken into account."""


class Greedy(ABC):
    """The scores of a pool while a batch grows.

    A member writes :meth:`scores` and :meth:`add`.
    """

    @abstractmethod
    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        """What every sample would bring, −inf where it cannot be chosen; of those not free anything.

        Args:
            free: which samples are not chosen yet.
        """

    @abstractmethod
    def add(self, i: int) -> None:
        """Take sample i of the pool into the batch."""

    def choose(self, free: Bool[Tensor, "n"]) -> tuple[int | None, float]:
        """The free sample with the largest score, the first of equals, and its score; None if none can be chosen."""
        scores = possible(self.scores(free)).masked_fill(~free, -torch.inf)
        i = int(scores.argmax())
        best = float(scores[i])
        return (i, best) if best > -torch.inf else (None, best)

    def keep(self, chosen: list[int], batch_size: int) -> list[int]:
        """The positions in ``chosen`` of the samples that make the batch: all of them."""
        return list(range(len(chosen)))


class FixedScores(Greedy):
    """Scores that do not depend on what else is chosen.

    Args:
        values: of every sample of the pool.
    """

    def __init__(self, values: Float[Tensor, "n"]) -> None:
        self._values = possible(values)
        self._next = iter(self._values.argsort(descending=True, stable=True))

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The values."""
        return self._values

    def choose(self, free: Bool[Tensor, "n"]) -> tuple[int | None, float]:
        """The next in order."""
        i = int(next(self._next))
        value = float(self._values[i])
        return (i, value) if value > -torch.inf else (None, value)

    def add(self, i: int) -> None:
        """Nothing changes."""


def possible(scores: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
    """Scores with −inf, which is never chosen, for whatever is not finite.

    Args:
        scores: of the pool.
    """
    return scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
