"""Features scaled to a mean squared norm of one."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from tangrams.learners.base import as_features
from tangrams.learners.selection.rows import as_rows
from tangrams.operators import FeatureMatrix


class UnitDiagonal(TransformerMixin, BaseEstimator):
    r"""Scales features so that the samples of the fit have :math:`k(x, x) = 1` on average [007].

    .. math:: \phi \mapsto \phi \Big/ \sqrt{\tfrac1n \sum_i \lVert \phi(x_i) \rVert^2}

    What a noise level of 0.1 means then does not depend on the network. Fitted on the labelled samples. Kernels are
    scaled by :class:`~tangrams.kernels.ScaledKernel`.

    Attributes:
        scale_: the factor.

    Shape:
        ``(n, d)`` → ``(n, d)``, float64.

    Raises:
        ValueError: from ``fit``, if all features are zero.

    Example:
        >>> UnitDiagonal().fit_transform([[3.0, 4.0], [5.0, 0.0]])
        array([[0.6, 0.8],
               [1. , 0. ]])
    """

    @no_type_check
    def __init__(self) -> None:
        pass

    def fit(self, X: Any, y: Any = None) -> UnitDiagonal:
        """Measure the samples ``X``; ``y`` is ignored."""
        X = as_features(self, X)
        squares = X.diag_gram() if isinstance(X, FeatureMatrix) else torch.linalg.vecdot(X.double(), X.double())
        mean = float(squares.to(torch.float64).mean())
        if not mean > 0:
            raise ValueError("UnitDiagonal expects features that are not all zero: there is no scale to bring to one")
        self.scale_ = mean**-0.5
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The scaled features."""
        check_is_fitted(self, "scale_")
        X = as_features(self, X, reset=False)
        return torch.cat([self.scale_ * rows for rows in as_rows(X)]).cpu().numpy()
