"""What the classifiers share whose logits are inner products with the training samples."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import KernelMixin, as_targets


class KernelClassifier(KernelMixin, ClassifierMixin, BaseEstimator):
    """Logits ``K(x, X) α + b``, one per class, and what follows from them.

    A member's ``fit`` sets the attributes.

    Attributes:
        classes_: the class labels, sorted.
        dual_coef_: α, ``(n, C)``.
        intercept_: b, ``(C,)``.
    """

    classes_: np.ndarray
    dual_coef_: np.ndarray
    intercept_: np.ndarray

    def _labels(self, K: Any, y: Any) -> np.ndarray:
        """The class index of each sample; sets ``classes_``."""
        y = as_targets(self, K, y)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs at least two classes, got one class: {self.classes_[0]!r}")
        return index

    def logits(self, X: Any) -> np.ndarray:
        """One logit per class, ``(m, C)``, also where there are two classes."""
        check_is_fitted(self, "dual_coef_")
        return self._cross_gram(X).numpy() @ self.dual_coef_ + self.intercept_

    def decision_function(self, X: Any) -> np.ndarray:
        """The logits ``(m, C)``; for two classes the second's minus the first's, ``(m,)``."""
        logits = self.logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """The softmax of the logits, ``(m, C)``."""
        return softmax(self.logits(X), axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest logit."""
        best = self.logits(X).argmax(1)  # first: an estimator that is not fitted says so
        return self.classes_[best]


def mean_diagonal(K: Float[Tensor, "n n"]) -> float:
    """The unit of a Gram matrix, tr K / n; one where all features are zero."""
    mean = float(K.diagonal().mean())
    return mean if mean > 0 else 1.0
