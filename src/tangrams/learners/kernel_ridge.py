"""Kernel ridge regression from one eigendecomposition: every ridge, the hat matrix and leave-one-out in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import HasGram, KernelMixin, as_targets

DELTAS: tuple[float, ...] = tuple(float(10.0 ** (e / 3)) for e in range(-15, 7))
"""The ridges tried when none is given: 1e-5 to 100, three a decade, in units of the Gram's mean diagonal."""


@dataclass(frozen=True)
class GramSpectrum:
    r"""A Gram matrix taken apart, :math:`K = U \Lambda U^T`, and ridge regression on it for any δ.

    .. math::
        f(x) = \bar y + k_x (K + \hat\delta I)^{-1} (y - \bar y 1), \qquad \hat\delta = \delta \, \mathrm{tr} K / n

    where ȳ is the mean target and k_x the inner products of x with the samples. With
    :math:`H = K (K + \hat\delta I)^{-1}` and :math:`\mu_{-i}` the mean without sample i, leaving i out (mean
    included, the ridge kept) changes its residual to

    .. math::
        y_i - f_{-i}(x_i) = \frac{(y - Hy)_i - \mu_{-i} (1 - H1)_i}{1 - H_{ii}}.

    Attributes:
        eigenvalues: λ, ascending, none below zero: ``(n,)``, float64.
        eigenvectors: U: ``(n, n)``.
        unit: tr K / n, what δ is measured in.
    """

    eigenvalues: Float[Tensor, "n"]
    eigenvectors: Float[Tensor, "n n"]
    unit: float

    @classmethod
    def of(cls, K: Tensor) -> GramSpectrum:
        """Take a symmetric positive semi-definite ``(n, n)`` Gram apart in float64.

        Raises:
            ValueError: if it is not square, or its trace is zero.
        """
        if K.ndim != 2 or K.shape[0] != K.shape[1]:
            raise ValueError(f"GramSpectrum expects a square Gram matrix, got {tuple(K.shape)}")
        K = K.to(torch.float64)
        unit = float(K.diagonal().mean())
        if not unit > 0:
            raise ValueError("GramSpectrum got a Gram matrix of trace zero: every feature row is zero")
        eigenvalues, U = torch.linalg.eigh((K + K.mT) / 2)
        return cls(eigenvalues.clamp_min(0), U, unit)

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def shrinkage(self, delta: float) -> Float[Tensor, "n"]:
        """λ / (λ + δ̂), the eigenvalues of the hat matrix."""
        return self.eigenvalues / (self.eigenvalues + delta * self.unit)

    def effective_dimension(self, delta: float) -> float:
        """The trace of H, Σ λ / (λ + δ̂)."""
        return float(self.shrinkage(delta).sum())

    def hat(self, delta: float) -> Float[Tensor, "n n"]:
        """H = K (K + δ̂ I)⁻¹."""
        return (self.eigenvectors * self.shrinkage(delta)) @ self.eigenvectors.mT

    def hat_diagonal(self, delta: float) -> Float[Tensor, "n"]:
        """The leverages H_ii."""
        return self.eigenvectors.square() @ self.shrinkage(delta)

    def weights(self, cross: Float[Tensor, "m n"], delta: float) -> Float[Tensor, "m n"]:
        """Smoother weights w(x) = k_x (K + δ̂ I)⁻¹: the model is ȳ + Σ_i w_i(x) (y_i − ȳ)."""
        U = self.eigenvectors
        return ((cross.to(U.dtype) @ U) / (self.eigenvalues + delta * self.unit)) @ U.mT

    def dual(self, targets: Float[Tensor, "n C"], delta: float) -> Float[Tensor, "n C"]:
        """α = (K + δ̂ I)⁻¹ (y − ȳ): predictions are ȳ + k_x α."""
        U = self.eigenvectors
        centred = targets - targets.mean(0)
        return U @ ((U.mT @ centred) / (self.eigenvalues + delta * self.unit)[:, None])

    def residuals(self, targets: Float[Tensor, "n C"], delta: float) -> Float[Tensor, "n C"]:
        """Targets minus the model, on the samples it was fitted to."""
        return self.dual(targets, delta) * (delta * self.unit)

    def loo_residuals(self, targets: Float[Tensor, "n C"], delta: float) -> Float[Tensor, "n C"]:
        """Targets minus the model that did not see the sample: exact, without refitting."""
        n = len(self)
        if n < 2:
            raise ValueError("leave-one-out needs at least two samples")
        U, keep = self.eigenvectors, 1 - self.shrinkage(delta)
        outside = U @ (keep[:, None] * (U.mT @ targets))  # (I − H) y
        ones = U @ (keep * U.sum(0))  # (I − H) 1
        mean_without = (targets.sum(0) - targets) / (n - 1)
        return (outside - mean_without * ones[:, None]) / (U.square() @ keep)[:, None]

    def loo_error(self, targets: Float[Tensor, "n C"], delta: float) -> float:
        """Mean squared leave-one-out residual, summed over outputs."""
        return float(self.loo_residuals(targets, delta).square().sum(1).mean())

    def gcv_error(self, targets: Float[Tensor, "n C"], delta: float) -> float:
        """Generalised cross-validation, (1/n)‖y − f‖² / (1 − tr S / n)²; infinite where the model interpolates."""
        n, keep = len(self), 1 - self.shrinkage(delta)
        free = float(keep.sum() - keep @ self.eigenvectors.sum(0).square() / n) / n  # 1 − tr S / n, S with the mean
        if free < 1e-8:
            return float("inf")
        return float(self.residuals(targets, delta).square().sum(1).mean()) / free**2

    def choose(
        self,
        targets: Float[Tensor, "n C"],
        deltas: Sequence[float] = DELTAS,
        criterion: Callable[[GramSpectrum, Tensor, float], float] = loo_error,
    ) -> float:
        """The δ with the smallest error by ``criterion``, the largest one on ties."""
        errors = [criterion(self, targets, delta) for delta in deltas]
        best = min(errors)
        return max(delta for delta, error in zip(deltas, errors, strict=True) if error == best)


def one_hot(labels: Tensor, num_classes: int) -> Float[Tensor, "n C"]:
    """Labels as float64 indicator columns."""
    return torch.nn.functional.one_hot(labels, num_classes).to(torch.float64)


class _KernelRidgeBase(KernelMixin, BaseEstimator):
    """What both estimators share: the spectrum, the choice of δ, and the answers by smoother weights."""

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
