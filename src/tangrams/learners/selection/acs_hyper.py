"""Random features of the expected complete log-likelihood, for a noise level with a prior."""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from tangrams.learners.base import as_features, as_targets
from tangrams.learners.selection.acs_random import leverages, normal_draws
from tangrams.learners.selection.posterior import jittered_cholesky
from tangrams.learners.selection.rows import as_rows, second_moment


class ACSHyperRandomFeatures(TransformerMixin, BaseEstimator):
    r"""As :class:`~tangrams.learners.selection.ACSRandomFeatures`, with the noise learned from the labels [007].

    .. math:: \psi_j(x) = -\frac{1}{\sqrt p} \Bigl[\tfrac12 \log 2π
              + \tfrac12 (θ_j^\top \phi)^2 + \tfrac12 \tfrac{b}{a} (1 + \phi^\top Σ \phi)\Bigr], \qquad
              Σ = (\Phi^\top \Phi + I)^{-1}, \quad a = 1 + \tfrac n2, \quad
              b = 1 + \tfrac12 \bigl(\lVert y \rVert^2 - μ^\top Σ^{-1} μ\bigr)

    with an inverse-gamma prior on the noise variance, a unit prior on the weights, :math:`μ = Σ \Phi^\top y` and
    :math:`θ_j \sim N(0, Σ)`. Pinsler et al. (2019).

    Args:
        num_features: p.
        random_state: fixes the draws of θ.

    Attributes:
        theta_: the draws, ``(d, p)``.
        noise_variance_: b / a.

    Shape:
        ``X (n, d)``, ``y (n,)`` → ``(n, p)``, float64.

    Raises:
        ValueError: from ``fit``, without targets, or if the number of features is not positive.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, num_features: int = 512, *, random_state: int = 0) -> None:
        self.num_features = num_features
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> ACSHyperRandomFeatures:
        """Condition on the labelled samples ``X`` and their standardised targets ``y``."""
        X = as_features(self, X)
        targets = torch.from_numpy(as_targets(self, X, y).astype(np.float64)).to(X.device)
        moment = second_moment(X)
        moment.diagonal().add_(1)
        self._factor = jittered_cholesky(moment)
        self.theta_ = normal_draws(self._factor, self.num_features, self.random_state).cpu().numpy()
        correlation, seen = targets.new_zeros(len(moment)), 0
        for rows in as_rows(X):
            correlation += rows.mT @ targets[seen : seen + len(rows)]
            seen += len(rows)
        explained = leverages(self._factor, correlation[None])[0]  # μᵀ Σ⁻¹ μ
        a, b = 1 + 0.5 * len(targets), 1 + 0.5 * float(targets.square().sum() - explained)
        self.noise_variance_ = b / a
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The random features of samples."""
        check_is_fitted(self, "theta_")
        X = as_features(self, X, reset=False)
        theta = torch.from_numpy(self.theta_).to(self._factor.device)
        found = []
        for rows in as_rows(X):
            variance = self.noise_variance_ * (1 + leverages(self._factor, rows))[:, None]
            found.append(-0.5 * (math.log(2 * math.pi) + (rows @ theta).square() + variance) / theta.shape[1] ** 0.5)
        return torch.cat(found).cpu().numpy()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
