"""Features of the gradient of the expected log-likelihood."""

from __future__ import annotations

from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from tangrams.learners.base import as_features
from tangrams.learners.selection.posterior import Conditioning, checked_noise
from tangrams.learners.selection.rows import as_rows
from tangrams.operators import Column, KhatriRaoSketch


class ACSGradientFeatures(TransformerMixin, BaseEstimator):
    r"""Sketched features of the product of a kernel and its posterior [007].

    .. math:: k_{acs}(x, x') = \frac{1}{σ^4} k(x, x')\, k_{post}(x, x')

    The inner product of the gradients of the log-likelihood in the weights, over draws of the label. Its features are
    the d² products of those of the two kernels, brought to p by a :class:`~tangrams.operators.KhatriRaoSketch`, which
    never forms them. The exact kernel is :class:`~tangrams.kernels.ProductKernel` with
    :class:`~tangrams.kernels.PosteriorKernel`. For :class:`~tangrams.learners.selection.KMeansPlusPlus`.

    Args:
        num_features: p.
        noise: σ.
        random_state: fixes the sketch.

    Attributes:
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

    def fit(self, X: Any, y: Any = None) -> ACSGradientFeatures:
        """Condition on the labelled samples ``X``; ``y`` is ignored."""
        X = as_features(self, X)
        d = X.shape[1]
        sketch = KhatriRaoSketch(self.num_features, seed=self.random_state)
        self._sketch = sketch.bind((Column("products", (d, d), 0, d * d),))
        self.noise_ = checked_noise(self, self.noise)
        self._condition = Conditioning(X, self.noise_)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The sketched features of samples."""
        check_is_fitted(self, "noise_")
        X = as_features(self, X, reset=False)
        found = []
        for rows in as_rows(X):
            out = rows.new_zeros(len(rows), self._sketch.num_features)
            self._sketch.accumulate_outer(rows[:, None], self._condition(rows)[:, None], 0, out)
            found.append(out / self.noise_**2)
        return torch.cat(found).cpu().numpy()
