"""Features whose inner products are the posterior covariance of a Gaussian process."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import as_features
from tangrams.learners.selection.rows import as_rows, second_moment

_TRIES = 15


class PosteriorFeatures(TransformerMixin, BaseEstimator):
    r"""Features of the covariance that is left after the samples of the fit are labelled [007].

    .. math:: \phi \mapsto σ L^{-1} \phi, \qquad L L^\top = \Phi^\top \Phi + σ^2 I

    Their inner products are :math:`k(x, x') - k_x (K + σ^2 I)^{-1} k_{x'}`. Fitted on fewer samples than there are
    features it answers by the symmetric root :math:`(I + \Phi^\top \Phi / σ^2)^{-1/2}` instead, whose inner products
    are the same. For kernels without features :class:`~tangrams.kernels.PosteriorKernel`.

    Args:
        noise: σ, the standard deviation of the noise; the paper puts it on features brought to a mean squared norm of
            one by :class:`~tangrams.learners.selection.UnitDiagonal`.

    Attributes:
        noise_: σ.

    Shape:
        ``(n, d)`` → ``(n, d)``, float64.

    Raises:
        ValueError: from ``fit``, if the noise is not positive.

    Example:
        >>> posterior = PosteriorFeatures(1.0).fit([[1.0, 0.0]])
        >>> np.abs(posterior.transform([[1.0, 1.0]]).round(3))
        array([[0.707, 1.   ]])
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, noise: float = 0.1) -> None:
        self.noise = noise

    def fit(self, X: Any, y: Any = None) -> PosteriorFeatures:
        """Condition on the labelled samples ``X``; ``y`` is ignored, since the covariance does not depend on it."""
        X = as_features(self, X)
        self.noise_ = checked_noise(self, self.noise)
        self._condition = Conditioning(X, self.noise_)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The posterior features of samples."""
        check_is_fitted(self, "noise_")
        X = as_features(self, X, reset=False)
        return torch.cat([self._condition(rows) for rows in as_rows(X)]).cpu().numpy()


class Conditioning:
    """The linear map of :class:`PosteriorFeatures`.

    Args:
        X: the rows that are conditioned on.
        noise: σ.
    """

    def __init__(self, X: Any, noise: float) -> None:
        n, d = X.shape
        self.noise = noise
        self.factor: Tensor | None = None
        if d <= n:
            moment = second_moment(X)
            moment.diagonal().add_(noise**2)
            self.factor = jittered_cholesky(moment)
            return
        # With K = Φ Φᵀ = U Λ Uᵀ:  (I + ΦᵀΦ/σ²)^(−1/2) = I + Φᵀ U diag(g) Uᵀ Φ,  g = ((1 + λ/σ²)^(−1/2) − 1) / λ.
        self.labelled = torch.cat(list(as_rows(X)))
        eigenvalues, U = torch.linalg.eigh(self.labelled @ self.labelled.mT)
        root = (1 + eigenvalues.clamp_min(0) / noise**2).sqrt()
        self.middle = -(U / (noise**2 * root * (1 + root))) @ U.mT

    def __call__(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """The posterior features of float64 rows."""
        if self.factor is not None:
            return self.noise * torch.linalg.solve_triangular(self.factor, rows.mT, upper=False).mT
        return rows + ((rows @ self.labelled.mT) @ self.middle) @ self.labelled


def jittered_cholesky(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The Cholesky factor; where rounding has made the matrix indefinite, with the least jitter that helps.

    Args:
        matrix: symmetric, positive definite but for rounding.

    Raises:
        ValueError: if 15 doublings of 10⁻⁵ of its mean diagonal do not help.
    """
    jitter = 1e-5 * matrix.diagonal().mean() + 1e-30
    added = torch.zeros_like(jitter)
    eye = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    for _ in range(_TRIES):
        factor, failed = torch.linalg.cholesky_ex(matrix + added * eye)
        if not bool(failed) and bool(factor.isfinite().all()):
            return factor
        added, jitter = added + jitter, 2 * jitter
    raise ValueError("a posterior needs a positive semi-definite second moment: are the features finite?")


def checked_noise(who: Any, noise: float) -> float:
    """σ as a positive number.

    Args:
        who: names the estimator.
        noise: what it was given.

    Raises:
        ValueError: if it is not positive.
    """
    if not noise > 0:
        raise ValueError(f"{type(who).__name__} expects noise > 0, got {noise}: it is a standard deviation")
    return float(noise)
