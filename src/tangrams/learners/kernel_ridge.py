"""Kernel ridge regression around the mean target, with its ridge from closed-form leave-one-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import HasGram, KernelMixin, as_targets
from tangrams.operators.ridge import DELTAS, GramSpectrum


def one_hot(labels: Tensor, num_classes: int) -> Float[Tensor, "n C"]:
    """Labels as float64 indicator columns."""
    return torch.nn.functional.one_hot(labels, num_classes).to(torch.float64)


class _KernelRidgeBase(KernelMixin, BaseEstimator):
    """What both estimators share: the spectrum, the choice of δ, and the answers by smoother weights."""

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        kernel: HasGram | Literal["precomputed"] | None = None,
        *,
        delta: float | None = None,
        deltas: Sequence[float] = DELTAS,
        criterion: Callable[[GramSpectrum, Tensor, float], float] = GramSpectrum.loo_error,
    ) -> None:
        self.kernel = kernel
        self.delta = delta
        self.deltas = deltas
        self.criterion = criterion

    def _fit_targets(self, K: Tensor, targets: Tensor) -> None:
        for delta in self.deltas if self.delta is None else [self.delta]:
            if not delta > 0:
                raise ValueError(f"{type(self).__name__} expects δ > 0, got {delta}: K + δI must be invertible")
        self.spectrum_ = GramSpectrum.of(K) if float(K.diagonal().sum()) > 0 else _null_spectrum(len(K))
        if self.delta is not None:
            self.delta_ = float(self.delta)
        elif len(K) < 2:
            self.delta_ = 1.0
        else:
            self.delta_ = self.spectrum_.choose(targets, self.deltas, self.criterion)
        self.mean_ = targets.mean(0).numpy()
        self.targets_ = targets.numpy()
        self.dual_coef_ = self.spectrum_.dual(targets, self.delta_).numpy()

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "dual_coef_")
        return self.mean_ + self._cross_gram(X).numpy() @ self.dual_coef_

    def smoother_weights(self, X: Any) -> np.ndarray:
        """w(x) = k_x (K + δ̂ I)⁻¹, ``(m, n)``: scores are ``mean_ + w @ (targets_ - mean_)``."""
        check_is_fitted(self, "dual_coef_")
        return self.spectrum_.weights(self._cross_gram(X), self.delta_).numpy()

    def hat_matrix(self) -> np.ndarray:
        """H = K (K + δ̂ I)⁻¹, ``(n, n)``."""
        check_is_fitted(self, "dual_coef_")
        return self.spectrum_.hat(self.delta_).numpy()

    def loo_scores(self) -> np.ndarray:
        """For each training sample the scores of the model that did not see it, ``(n, C)``, in closed form."""
        check_is_fitted(self, "dual_coef_")
        targets = torch.from_numpy(self.targets_)
        return (targets - self.spectrum_.loo_residuals(targets, self.delta_)).numpy()


class KernelRidge(MultiOutputMixin, RegressorMixin, _KernelRidgeBase):
    r"""Kernel ridge regression around the mean target, with δ from closed-form leave-one-out.

    .. math:: f(x) = \bar y + k_x (K + \delta \tfrac{\mathrm{tr} K}{n} I)^{-1} (y - \bar y)

    The kernel surrogates of a network's study are this model on its trace NTK [072].

    Args:
        kernel: whose inner products: None for those of the feature rows, ``"precomputed"`` for ``X`` a Gram
            matrix, or an object with ``gram`` and ``diag``.
        delta: the ridge in units of the Gram's mean diagonal; None: the best of ``deltas``.
        deltas: what to choose from.
        criterion: ``(spectrum, targets, delta) -> error``: :meth:`GramSpectrum.loo_error` or
            :meth:`GramSpectrum.gcv_error`.

    Attributes:
        delta_: the ridge used.
        dual_coef_: α, ``(n, C)``.
        mean_: ȳ, ``(C,)``.
        spectrum_: the :class:`GramSpectrum` of the training samples.

    Shape:
        ``X (n, d)``, ``y (n,)`` or ``(n, C)`` → predictions like ``y``.

    Example:
        >>> model = KernelRidge(delta=1e-9).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
        >>> [round(float(v), 6) for v in model.predict([[2.0], [1.0]])]
        [4.6, 3.8]
    """

    def fit(self, X: Any, y: Any) -> KernelRidge:
        """Fit to targets ``(n,)`` or ``(n, C)``."""
        K = self._fit_gram(X)
        targets = as_targets(self, K, y, multi_output=True)
        self._flat = targets.ndim == 1
        self._fit_targets(K, torch.from_numpy(targets.reshape(len(targets), -1).astype(np.float64)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """ȳ + k_x α."""
        scores = self._scores(X)
        return scores[:, 0] if self._flat else scores


class KernelRidgeClassifier(ClassifierMixin, _KernelRidgeBase):
    r"""Kernel ridge regression on class indicators; the class with the largest score.

    The *clean-up* model of a network's study: closed form, and its leave-one-out margins find wrong labels.

    Args:
        kernel: as for :class:`KernelRidge`.
        delta: the ridge in units of the Gram's mean diagonal; None: the best of ``deltas``.
        deltas: what to choose from.
        criterion: as for :class:`KernelRidge`.

    Attributes:
        classes_: the class labels, sorted.
        delta_: the ridge used.
        dual_coef_: α, ``(n, C)``.
        mean_: the class shares, ``(C,)``.
        spectrum_: the :class:`GramSpectrum` of the training samples.

    Shape:
        ``X (n, d)``, ``y (n,)`` → classes ``(m,)``.
    """

    def fit(self, X: Any, y: Any) -> KernelRidgeClassifier:
        """Fit to class labels ``(n,)``."""
        K = self._fit_gram(X)
        y = as_targets(self, K, y)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"KernelRidgeClassifier needs at least two classes, got one class: {self.classes_[0]!r}")
        self._fit_targets(K, one_hot(torch.from_numpy(index), len(self.classes_)))
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores ``(m, C)``; for two classes the second's minus the first's, ``(m,)``."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest score."""
        best = self._scores(X).argmax(1)
        return self.classes_[best]


def _null_spectrum(n: int) -> GramSpectrum:
    """Of features that are all zero: the model is the mean."""
    return GramSpectrum(torch.zeros(n, dtype=torch.float64), torch.eye(n, dtype=torch.float64), 1.0)
