"""The kernel generalised linear model: logistic regression with the rows of a Gram matrix as its features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, no_type_check

from sklearn.linear_model import SGDClassifier

from tangrams.learners.base import HasGram
from tangrams.learners.kernel_classifier import KernelClassifier, mean_diagonal


class KernelGLM(KernelClassifier):
    r"""A linear classifier on the rows of the Gram matrix, with an L2 penalty on its coefficients [072].

    .. math::
        \min_{\alpha, b} \; \frac1n \sum_i \log\bigl(1 + e^{-y_i (\tilde K_i \alpha + b)}\bigr)
        + \frac{a}{2} \|\alpha\|^2

    for each class against the rest, by stochastic gradient descent as the paper does it. K̃ is the Gram in units of its
    mean diagonal: the paper's cosine kernels as they are, any other one whatever its scale. The penalty is *not* the
    RKHS norm αᵀKα: :class:`~tangrams.learners.KernelLogisticRegression` has that, and tracked networks better in every
    case measured here. The paper's kernel is the cosine-normalised trace NTK.

    Args:
        kernel: as :class:`~tangrams.learners.base.KernelMixin` says.
        alpha: a, the weight of the penalty.
        fit_intercept: whether b is fitted, or zero.
        class_weight: ``"balanced"``, weights by class, or None for one each.
        max_iter: passes over the training rows at most.
        tol: the improvement of the loss under which it stops.
        random_state: fixes the order of the samples.

    Attributes:
        classes_: the class labels, sorted.
        dual_coef_: α, ``(n, C)``; for two classes the halves ∓α/2, so that their difference is the decision value.
        intercept_: b, ``(C,)``.
        n_iter_: passes made.

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
        max_iter: int = 1000,
        tol: float = 1e-3,
        random_state: int | None = 0,
    ) -> None:
        self.kernel = kernel
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> KernelGLM:
        """Fit to class labels ``(n,)``; scikit-learn's warning says when the passes ran out."""
        K = self._fit_gram(X)
        index = self._labels(K, y)
        unit = mean_diagonal(K)
        weight = self.class_weight
        if isinstance(weight, Mapping):
            weight = {c: weight[label] for c, label in enumerate(self.classes_.tolist()) if label in weight}
        model: Any = SGDClassifier(
            loss="log_loss",
            penalty="l2",
            alpha=self.alpha,
            fit_intercept=self.fit_intercept,
            class_weight=weight,
            max_iter=self.max_iter,
            tol=self.tol,
            random_state=self.random_state,
        ).fit(K.numpy() / unit, index)
        coefficients, intercept = model.coef_.T, model.intercept_
        if len(self.classes_) == 2:  # one column: split it, so that logits have one column per class
            coefficients = coefficients * [-0.5, 0.5]
            intercept = intercept * [-0.5, 0.5]
        self.dual_coef_ = coefficients / unit
        self.intercept_ = intercept
        self.n_iter_ = int(model.n_iter_)
        return self
