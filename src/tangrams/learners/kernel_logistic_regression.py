"""Multinomial logistic regression in a kernel's own space, to labels or to probabilities."""

from __future__ import annotations

from typing import Any, Literal, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.learners.base import HasGram, as_targets
from tangrams.learners.kernel_classifier import KernelClassifier, mean_diagonal
from tangrams.learners.logistic import logistic_coefficients
from tangrams.operators import eigsh


class KernelLogisticRegression(KernelClassifier):
    r"""Multinomial logistic regression with the RKHS norm as its penalty, on the leading eigenvectors.

    .. math::
        \min_{f, b} \; \sum_i \mathrm{CE}\bigl(p_i, f(x_i) + b\bigr) + \frac{1}{2C} \sum_c \|f_c\|^2,
        \qquad f_c = \sum_i \alpha_{ic} \, k(x_i, \cdot)

    The norm is that of the kernel divided by its mean diagonal, so that the same C means the same for any scaling of
    the kernel. With the leading eigenpairs :math:`K \approx U \Lambda U^T` the model is logistic regression on
    :math:`U \Lambda^{1/2}` under a plain L2 penalty, a convex problem of size rank × classes, solved by L-BFGS;
    :math:`\alpha = U \Lambda^{-1/2} \beta`.

    A surrogate of a network on its cosine trace NTK [072]: fitted to labels it was the most faithful honest one;
    :meth:`fit_probabilities` on the network's own probabilities makes a *mimic*.

    Args:
        kernel: as :class:`~tangrams.learners.base.KernelMixin` says.
        C: the inverse weight of the penalty.
        rank: eigenvectors used at most.
        max_iter: iterations at most.
        tol: the largest entry of the mean loss's gradient at which it stops.

    Attributes:
        classes_: the class labels, sorted.
        dual_coef_: α, ``(n, C)``.
        intercept_: b, ``(C,)``, not penalised.
        n_iter_: iterations made.

    Shape:
        ``X (n, d)``, ``y (n,)`` → classes ``(m,)``; logits and probabilities ``(m, C)``.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        kernel: HasGram | Literal["precomputed"] | None = None,
        *,
        C: float = 1.0,
        rank: int = 600,
        max_iter: int = 1000,
        tol: float = 1e-5,
    ) -> None:
        self.kernel = kernel
        self.C = C
        self.rank = rank
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> KernelLogisticRegression:
        """Fit to class labels ``(n,)``."""
        K = self._fit_gram(X)
        index = self._labels(K, y)
        return self._fit_to(K, np.eye(len(self.classes_))[index])

    def fit_probabilities(self, X: Any, probabilities: Any, classes: Any | None = None) -> KernelLogisticRegression:
        """Fit to probabilities, such as a network's: soft targets.

        Args:
            X: samples.
            probabilities: ``(n, C)``, rows on the simplex.
            classes: the class of each column; 0 … C−1 when absent.

        Raises:
            ValueError: if a row is negative somewhere or does not sum to one, or there are fewer than two columns.
        """
        K = self._fit_gram(X)
        targets = as_targets(self, K, probabilities, multi_output=True).astype(np.float64)
        if targets.ndim != 2 or targets.shape[1] < 2:
            raise ValueError(
                f"{type(self).__name__} expects probabilities of at least two classes, got shape {targets.shape}"
            )
        wrong = (targets < 0).any(1) | (abs(targets.sum(1) - 1) > 1e-3)
        if wrong.any():
            raise ValueError(
                f"{type(self).__name__} expects rows on the simplex, row {int(wrong.argmax())} is not: "
                "pass softmax(logits), not logits"
            )
        self.classes_ = np.arange(targets.shape[1]) if classes is None else np.asarray(classes)
        if self.classes_.shape != (targets.shape[1],):
            raise ValueError(f"got {targets.shape[1]} columns of probabilities and classes {self.classes_!r}")
        return self._fit_to(K, targets / targets.sum(1, keepdims=True))

    def _fit_to(self, K: Tensor, targets: np.ndarray) -> KernelLogisticRegression:
        if not self.C > 0:
            raise ValueError(f"{type(self).__name__} expects C > 0, got {self.C}")
        if self.rank < 1:
            raise ValueError(f"{type(self).__name__} expects rank ≥ 1, got {self.rank}")
        unit = mean_diagonal(K)
        eigenvalues, U = leading_eigenpairs(K.numpy() / unit, self.rank)
        beta, self.intercept_, self.n_iter_ = logistic_coefficients(
            U * np.sqrt(eigenvalues),
            targets,
            penalty=1 / (self.C * len(targets)),
            max_iter=self.max_iter,
            tol=self.tol,
            who=type(self).__name__,
        )
        self.dual_coef_ = (U / np.sqrt(eigenvalues)) @ beta / unit
        return self


def leading_eigenpairs(
    K: Float[np.ndarray, "n n"], rank: int
) -> tuple[Float[np.ndarray, "r"], Float[np.ndarray, "n r"]]:
    """The largest eigenvalues, descending, and their vectors; those that are zero to rounding are left out.

    Args:
        K: symmetric positive semi-definite.
        rank: how many at most.
    """
    pairs = eigsh(torch.from_numpy((K + K.T) / 2), min(rank, len(K)))
    eigenvalues, U = pairs.values.numpy(), pairs.vectors.numpy()
    kept = eigenvalues > len(K) * np.finfo(K.dtype).eps * max(float(eigenvalues[0]), 0.0)
    return eigenvalues[kept], U[:, kept]
