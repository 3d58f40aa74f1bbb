"""Greedy maximisation of the determinant of the batch's kernel matrix."""

from __future__ import annotations

from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tangrams.learners.base import HasGram
from tangrams.learners.selection.base import BatchSelector, Greedy
from tangrams.learners.selection.falling import FallingScores
from tangrams.learners.selection.points import FeaturePoints, Points
from tangrams.learners.selection.posterior import Conditioning

_RANK_TOLERANCE = 1e-12
"""Without noise, variances below this share of the largest are rounding errors of zero."""


class MaxDeterminant(BatchSelector):
    r"""Takes one by one the sample of largest variance given all that are labelled or chosen [007].

    .. math:: i = \arg\max_x\; c(x), \qquad c(x) = k(x, x) + σ^2 - k_{x,S} (K_S + σ^2 I)^{-1} k_{S,x}

    The greedy maximiser of :math:`\det(K_S + σ^2 I)`: the pivoted Cholesky factorisation, D-optimal design, BatchBALD
    for a Gaussian process. Labelled samples are pivots that come first, which is the same as choosing by the pool
    alone on :class:`~tangrams.learners.selection.PosteriorFeatures`. Computed in float64; on features in O(b n d)
    by way of the directions that the pivots take out of feature space, on kernels from columns of the Gram matrix.

    Args:
        batch_size: how many samples to choose.
        kernel: as :class:`~tangrams.learners.selection.BatchSelector` says.
        noise: σ ≥ 0.
        random_state: fixes the draws of a batch that cannot be filled.

    Attributes:
        indices_: the chosen samples in the order of their choice: ``(b,)``.
        scores_: c when each was chosen: their product is the determinant: ``(b,)``.
        status_: None, or what went wrong: without noise, more samples than features have nothing left to gain.

    Shape:
        ``X (n, d)``, ``labelled (m, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch, or the noise negative.

    Example:
        >>> MaxDeterminant(2, noise=0.0).fit([[3.0, 0.0], [2.9, 0.1], [0.0, 1.0]]).indices_
        array([0, 2])
    """

    compute_dtype = torch.float64

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self, batch_size: int = 64, *, kernel: HasGram | None = None, noise: float = 0.1, random_state: int = 0
    ) -> None:
        super().__init__(batch_size, kernel=kernel, random_state=random_state)
        self.noise = noise

    def _begin(self, points: Points) -> Greedy:
        if not self.noise >= 0:
            raise ValueError(f"MaxDeterminant expects noise ≥ 0, got {self.noise}: it is a standard deviation")
        if isinstance(points, FeaturePoints):
            return _Directions(points, float(self.noise), self.batch_size)
        return _PivotedCholesky(points, float(self.noise), self.batch_size)


class _Directions(FallingScores):
    # Column j of the factor is Φ v_j for whoever is not a pivot yet, v_j = (φ_i − V Vᵀ φ_i) / √c_i: the noise enters
    # c alone. So the factor needs no memory of its own, and a step is one product with Φ.
    def __init__(self, points: FeaturePoints, noise: float, batch_size: int) -> None:
        rows, labelled = points.pool, points.parts[1]
        if len(labelled):
            rows = Conditioning(labelled, noise)(rows) if noise else _outside(rows, labelled)
        variance = torch.linalg.vecdot(rows, rows)
        self._floor = noise**2 or _RANK_TOLERANCE * float(points.diag.max())
        self._directions = rows.new_empty(batch_size, rows.shape[1])
        self._count = 0
        super().__init__(rows, variance + noise**2)

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        c = super().scores(free)
        return torch.where(c >= self._floor * (1 - 1e-9), c, -torch.inf)

    def _taken(self, i: int) -> Tensor:
        V = self._directions[: self._count]
        phi = self.rows[i]
        direction = (phi - (V @ phi) @ V) / self._scores[i].sqrt()
        self._directions[self._count] = direction
        self._count += 1
        return direction

    def _lowered(self, index: Int64[Tensor, "m"] | slice, rows: Tensor, taken: Tensor) -> Tensor:
        return self._scores[index] - (rows @ taken.mT).square().sum(1)


class _PivotedCholesky(Greedy):
    def __init__(self, points: Points, noise: float, batch_size: int) -> None:
        self._points, self._noise = points, noise
        labelled = points.labelled
        self._c = points.diag[: points.starts[2]].to(torch.float64) + noise**2
        self._floor = noise**2 or _RANK_TOLERANCE * float(self._c.max())
        self._factor = self._c.new_zeros(len(self._c), len(labelled) + batch_size)
        self._count = 0
        for j in labelled.tolist():
            if float(self._c[j]) >= self._floor:
                self.add(j)

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        c = self._c[: self._points.num_pool]
        return torch.where(c >= self._floor * (1 - 1e-9), c, -torch.inf)

    def add(self, i: int) -> None:
        L = self._factor[:, : self._count]
        column = self._points.products(torch.tensor([i], device=L.device), 2)[:, 0].to(torch.float64)
        column = column - L @ L[i]
        column[i] += self._noise**2
        column /= self._c[i].sqrt()
        self._factor[:, self._count] = column
        self._c -= column.square()
        self._count += 1


def _outside(rows: Float[Tensor, "n d"], labelled: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """What of the rows is orthogonal to all labelled ones."""
    _, singular, Vh = torch.linalg.svd(labelled, full_matrices=False)
    basis = Vh[singular > _RANK_TOLERANCE**0.5 * singular.max()]
    return rows - (rows @ basis.mT) @ basis
