"""Greedy reduction of the predictive variance of the whole pool, forwards and backwards."""

from __future__ import annotations

from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tangrams.learners.base import HasGram
from tangrams.learners.selection.base import BatchSelector, Greedy
from tangrams.learners.selection.points import Points


class BAIT(BatchSelector):
    r"""Takes one by one the sample whose label lowers the summed predictive variance most [007].

    .. math:: i = \arg\max_x \frac{\phi(x)^\top P\, C\, P\, \phi(x)}{\phi(x)^\top P\, \phi(x) + σ^2}, \qquad
              C = \sum_{x'} \phi(x') \phi(x')^\top, \qquad
              P \leftarrow P - \frac{P \phi_i \phi_i^\top P}{\phi_i^\top P \phi_i + σ^2}

    with P the covariance of the linear model's weights given what is labelled and chosen, and C over the pool, the
    labelled samples and those of ``reference``. With ``overselection > 1`` more samples are chosen than asked for, and
    those given up one by one whose labels are missed least. V-optimal design; BAIT of Ash et al. (2021).
    A step is one product with the features; P alone changes. Computed in float64. A kernel's samples get coordinates
    by the eigenvectors of their Gram matrix.

    Args:
        batch_size: how many samples to choose.
        kernel: as :class:`~tangrams.learners.selection.BatchSelector` says.
        noise: σ > 0.
        overselection: how many times the batch is chosen forwards: 1 (BAIT-F) or more; the paper's BAIT-FB has 2.
        random_state: fixes the draws of a batch that cannot be filled.

    Attributes:
        indices_: the chosen samples in the order of their choice: ``(b,)``.
        scores_: what each scored when it was chosen, ``(b,)``.
        status_: None, or what went wrong.

    Shape:
        ``X (n, d)``, ``labelled (m, d)``, ``reference (l, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch, the noise not positive, or
            ``overselection < 1``.

    Example:
        >>> BAIT(1).fit([[3.0, 0.0], [2.0, 0.0], [0.0, 2.5]]).indices_
        array([0])
    """

    compute_dtype = torch.float64

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        batch_size: int = 64,
        *,
        kernel: HasGram | None = None,
        noise: float = 0.1,
        overselection: float = 1.0,
        random_state: int = 0,
    ) -> None:
        super().__init__(batch_size, kernel=kernel, random_state=random_state)
        self.noise = noise
        self.overselection = overselection

    def fit(self, X: Any, y: Any = None, *, labelled: Any = None, reference: Any = None) -> BAIT:
        """Choose a batch of the pool ``X``; ``y`` is ignored.

        Args:
            X: the pool.
            y: ignored.
            labelled: the labelled samples, as ``X``; they are conditioned on, and their variance counts.
            reference: samples whose variance counts without their being labelled. On
                :class:`~tangrams.learners.selection.PosteriorFeatures` the paper passes the training samples here.
        """
        self._choose(self._points(X, labelled, reference))
        return self

    def _forward(self, n: int) -> int:
        return min(round(self.overselection * self.batch_size), n)

    def _begin(self, points: Points) -> Greedy:
        if not self.noise > 0:
            raise ValueError(f"BAIT expects noise > 0, got {self.noise}: it is a standard deviation")
        if not self.overselection >= 1:
            raise ValueError(f"BAIT expects overselection ≥ 1, got {self.overselection}")
        return _SummedVariance(points, float(self.noise) ** 2)


class _SummedVariance(Greedy):
    def __init__(self, points: Points, noise: float) -> None:
        rows = points.coordinates()
        n, m, d = points.num_pool, len(points.labelled), rows.shape[1]
        self._noise = noise
        self._C = rows.mT @ rows
        self._P = torch.eye(d, dtype=rows.dtype, device=rows.device)
        self._rows = weighted = rows[:n]
        if m:
            labelled = rows[n : n + m]
            factor = torch.linalg.cholesky(labelled.mT @ labelled + noise * self._P)
            self._P = noise * torch.cholesky_inverse(factor)
            weighted = self._rows @ self._P
        self._variance = torch.linalg.vecdot(weighted, self._rows)
        self._gain = torch.linalg.vecdot(weighted @ self._C, weighted)

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        scores = self._gain / (self._variance + self._noise)
        return torch.where(scores > 0, scores, -torch.inf)

    def add(self, i: int) -> None:
        self._update(i, -1 / (float(self._variance[i]) + self._noise))

    def _update(self, i: int, t: float) -> None:
        """``P ← P + t a aᵀ`` with ``a = P φ_i``, and what follows for every sample."""
        a = self._P @ self._rows[i]
        b = self._P @ (self._C @ a)
        along, across = (self._rows @ torch.stack([a, b], 1)).unbind(1)
        self._gain += 2 * t * along * across + t**2 * float(a @ self._C @ a) * along.square()
        self._variance += t * along.square()
        self._P.addr_(a, a, alpha=t)

    def keep(self, chosen: list[int], batch_size: int) -> list[int]:
        """Give up, one by one, the sample whose label is missed least."""
        kept = list(range(len(chosen)))
        while len(kept) > batch_size:
            index = torch.tensor([chosen[k] for k in kept], device=self._rows.device)
            # A label that is there has a variance below the noise: both are negative, the smallest loss is largest.
            margin = self._variance[index] - self._noise
            loss = torch.where(margin < 0, self._gain[index].clamp_min(0) / margin, -torch.inf)
            least = int(loss.argmax())
            if not float(loss[least]) > -torch.inf:
                return kept[:batch_size]
            self._update(int(index[least]), -1 / min(float(margin[least]), -1e-15))
            del kept[least]
        return kept
