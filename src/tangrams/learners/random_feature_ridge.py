"""Ridge regression on random features: the experiment beside the eigenframework's theory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.features import FeatureMap, RandomFeatures
from tangrams.learners.base import as_features, as_samples, as_targets
from tangrams.operators import FeatureMatrix, row_panels, solve


class RandomFeatureRidge(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Ridge regression around the mean target on k random features, without forming an n × n kernel [006].

    .. math:: f(x) = \bar y + φ(x)^T Φ^T (ΦΦ^T + δ̂ I)^{-1} (y - \bar y), \qquad \hat\delta = δ \, \mathrm{tr}(ΦΦ^T) / n

    With a map scaled by 1/√k that is K̂ of the eigenframework, and δ̂ its ridge: what
    :func:`~tangrams.lens.ridge_risk` predicts at ``k=num_features``. At δ = 0 the solution of the least norm.

    Args:
        features: a :class:`~tangrams.features.FeatureMap`, or what makes one when called with
            ``(in_features, num_features, seed=random_state)``.
        num_features: k; not read where ``features`` is a map.
        delta: δ ≥ 0, in units of the mean diagonal of ΦΦᵀ.
        random_state: the seed of a map that is made here.

    Attributes:
        feature_map_: the map.
        coef_: the weights of its features, ``(k, C)``.
        mean_: ȳ, ``(C,)``.

    Shape:
        ``X (n, d)``, or samples of any shape where ``features`` is a map, ``y (n,)`` or ``(n, C)`` → like ``y``.

    Example:
        >>> model = RandomFeatureRidge(num_features=2000, delta=1e-9).fit([[-1.0], [1.0]], [2.0, 0.0])
        >>> [round(abs(float(v)), 3) for v in model.predict([[-1.0], [1.0]])]
        [2.0, 0.0]
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        features: FeatureMap | Callable[..., FeatureMap] = RandomFeatures,
        *,
        num_features: int = 512,
        delta: float = 1e-3,
        random_state: int = 0,
    ) -> None:
        self.features = features
        self.num_features = num_features
        self.delta = delta
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> RandomFeatureRidge:
        """Fit to targets ``(n,)`` or ``(n, C)``.

        Args:
            X: samples.
            y: targets.

        Raises:
            ValueError: for δ below zero.
        """
        if not self.delta >= 0:
            raise ValueError(f"RandomFeatureRidge expects delta ≥ 0, got {self.delta}")
        X = self._read(X, reset=True)
        targets = as_targets(self, X, y, multi_output=True)
        self._flat = targets.ndim == 1
        if isinstance(self.features, FeatureMap):
            self.feature_map_ = self.features
        else:
            self.feature_map_ = self.features(X.shape[1], self.num_features, seed=self.random_state)
        phi = self._matrix(X)
        columns = torch.from_numpy(targets.reshape(len(targets), -1).astype(np.float64)).to(phi.device)
        mean = columns.mean(0)
        unit = float(phi.rows.diag().double().mean())
        if self.delta == 0 or unit == 0:
            coef = torch.linalg.lstsq(phi.to_dense().double().cpu(), (columns - mean).cpu(), driver="gelsd").solution
        else:
            coef = phi.mT @ solve((phi @ phi.mT).add_jitter(self.delta * unit), columns - mean).to(phi.dtype)
        self.mean_, self.coef_ = mean.cpu().numpy(), coef.cpu().double().numpy()
        return self

    def predict(self, X: Any) -> np.ndarray:
        """ȳ + φ(x)ᵀ coef."""
        check_is_fitted(self, "coef_")
        phi = self._matrix(self._read(X, reset=False))
        scores = self.mean_ + (phi @ torch.from_numpy(self.coef_).to(phi.device, phi.dtype)).double().cpu().numpy()
        return scores[:, 0] if self._flat else scores

    def _read(self, X: Any, *, reset: bool) -> Any:
        """Feature rows, or samples of any shape for a map that was given."""
        lazy = isinstance(X, FeatureMatrix) or callable(getattr(type(X), "matrix", None))
        if isinstance(self.features, FeatureMap) and not lazy:
            return as_samples(self, X, reset=reset)
        return as_features(self, X, reset=reset)

    def _matrix(self, X: Any) -> FeatureMatrix:
        """Φ in at least float64's company: lazy for samples in memory, panel by panel for rows that are not."""
        if not isinstance(X, FeatureMatrix):
            return self.feature_map_.matrix(X.double() if isinstance(X, Tensor) else X)
        return FeatureMatrix(rows=torch.cat([self.feature_map_(panel.double()) for _, _, panel in row_panels(X.rows)]))
