"""Random features of the expected complete log-likelihood, for a known noise level."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import as_features
from tangrams.learners.selection.posterior import checked_noise, jittered_cholesky
from tangrams.learners.selection.rows import as_rows, second_moment


class ACSRandomFeatures(TransformerMixin, BaseEstimator):
    r"""Random projections of what each sample is expected to add to the log-posterior [007].

    .. math:: \psi_j(x) = \frac{1}{\sqrt p} \left[\tfrac12 \log\Bigl(1 + \tfrac{s(x)}{σ^2}\Bigr)
              - \frac{(θ_j^\top \phi(x))^2 + s(x)}{2 σ^2}\right], \qquad θ_j \sim N(0, Σ), \quad
              s = \phi^\top Σ \phi, \quad Σ = σ^2 (\Phi^\top \Phi + σ^2 I)^{-1}

    With :class:`~tangrams.learners.selection.FrankWolfe` these are active Bayesian coresets (Pinsler et al., 2019): a
    batch whose weighted sum stands for that of the pool. The mean of the posterior, which no selection sees, is left
    out.

    Args:
        num_features: p.
        noise: σ.
        random_state: fixes the draws of θ.

    Attributes:
        theta_: the draws, ``(d, p)``.
        noise_: σ.

    Shape:
        ``(n, d)`` → ``(n, p)``, float64.

    Raises:
        ValueError: from ``fit``, if the noise or the number of features is not positive.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, num_features: int = 512, *, noise: float = 0.1, random_state: int = 0) -> None:
        self.num_features = num_features
        self.noise = noise
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> ACSRandomFeatures:
        """Condition on the labelled samples ``X``; ``y`` is ignored."""
        X = as_features(self, X)
        self.noise_ = checked_noise(self, self.noise)
        moment = second_moment(X)
        moment.diagonal().add_(self.noise_**2)
        self._factor = jittered_cholesky(moment)
        self.theta_ = (self.noise_ * normal_draws(self._factor, self.num_features, self.random_state)).cpu().numpy()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The random features of samples."""
        check_is_fitted(self, "theta_")
        X = as_features(self, X, reset=False)
        return torch.cat(list(self._features(X))).cpu().numpy()

    def _features(self, X: Any) -> Iterator[Float[Tensor, "_ p"]]:
        theta = torch.from_numpy(self.theta_).to(self._factor.device)
        for rows in as_rows(X):
            ratio = leverages(self._factor, rows)[:, None]  # s / σ²
            signal = (rows @ theta).square() / (2 * self.noise_**2)
            yield (0.5 * torch.log1p(ratio) - signal - 0.5 * ratio) / theta.shape[1] ** 0.5


def normal_draws(factor: Float[Tensor, "d d"], count: int, seed: int) -> Float[Tensor, "d p"]:
    """Columns from ``N(0, (L Lᵀ)⁻¹)``.

    Args:
        factor: L, lower triangular.
        count: how many.
        seed: fixes them.

    Raises:
        ValueError: if there are none.
    """
    if count < 1:
        raise ValueError(f"random features need num_features ≥ 1, got {count}")
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(len(factor), count, generator=generator, dtype=factor.dtype).to(factor.device)
    return torch.linalg.solve_triangular(factor.mT, draws, upper=True)


def leverages(factor: Float[Tensor, "d d"], rows: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
    """``φᵀ (L Lᵀ)⁻¹ φ`` of each row.

    Args:
        factor: L, lower triangular.
        rows: the rows.
    """
    return torch.linalg.solve_triangular(factor, rows.mT, upper=False).square().sum(0)
