"""The kernel generalised linear model: logistic regression with the rows of a Gram matrix as its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, no_type_check

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from tangrams.learners.base import HasGram
from tangrams.learners.kernel_classifier import KernelClassifier, mean_diagonal
from tangrams.learners.logistic import logistic_coefficients


class KernelGLM(KernelClassifier):
    r"""Multinomial logistic regression on the rows of the Gram matrix, with an L2 penalty on its coefficients [072].

    .. math::
        \min_{\alpha, b} \; \frac1n \sum_i w_i \, \mathrm{CE}\bigl(y_i, \tilde K_i \alpha + b\bigr)
        + \frac{a}{2} \|\alpha\|^2

    K̃ is the Gram in units of its mean diagonal: the paper's cosine kernels as they are, any other one whatever its
    scale. The penalty is *not* the RKHS norm αᵀKα; :class:`~tangrams.learners.KernelLogisticRegression` has that. The
    problem is convex and solved to its optimum by L-BFGS. The paper stops scikit-learn's ``SGDClassifier`` on the same
    objective, one class against the rest, which on rows of a Gram matrix ends far from the optimum.

    Args:
        kernel: as :class:`~tangrams.learners.base.KernelMixin` says; the paper's is the cosine of the trace NTK.
        alpha: a, the weight of the penalty.
        fit_intercept: whether b is fitted, or zero.
        class_weight: ``"balanced"``: each class weighs the same; a weight for each label; None: one each.
        max_iter: iterations at most.
        tol: the largest entry of the gradient at which it stops.

    Attributes:
        classes_: the class labels, sorted.
        dual_coef_: α, ``(n, C)``.
        intercept_: b, ``(C,)``.
        n_iter_: iterations made.

    Shape:
        ``X (n, d)``, ``y (n,)`` → classes ``(m,)``; logits and probabilities ``(m, C)``.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        kernel: HasGram | Literal["precomputed"] | None = None,
        *,
        alpha: float = 1e-4,
        fit_intercept: bool = True,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = "balanced",
        max_iter: int = 5000,
        tol: float = 1e-5,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: Any, y: Any) -> KernelGLM:
        """Fit to class labels ``(n,)``.

        Raises:
            ValueError: for ``alpha < 0``, or what no learner takes.
        """
        if not self.alpha >= 0:
            raise ValueError(f"KernelGLM expects alpha ≥ 0, got {self.alpha}")
        K = self._fit_gram(X)
        index = self._labels(K, y)
        unit = mean_diagonal(K)
        weight = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[index])
        coefficients, self.intercept_, self.n_iter_ = logistic_coefficients(
            K.numpy() / unit,
            np.eye(len(self.classes_))[index],
            penalty=self.alpha,
            weights=weight[index],
            fit_intercept=self.fit_intercept,
            max_iter=self.max_iter,
            tol=self.tol,
            who=type(self).__name__,
        )
        self.dual_coef_ = coefficients / unit
        return self
