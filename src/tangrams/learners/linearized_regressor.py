"""Regression with the linearised network: what training it, by gradient flow on squares, would predict."""

from __future__ import annotations

import math
from typing import Any, Literal, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import HasGram, KernelMixin, as_targets

_RESIDUAL = 1e-8
"""Relative residual up to which a Cholesky solve is believed; beyond it the pseudo-inverse answers."""


class LinearizedRegressor(KernelMixin, MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""A network linearised at its weights and trained by gradient flow, in closed form [033].

    .. math::
        f(x) = f_0(x) + k_x \, \frac{1 - e^{-(K + \hat\delta I) t}}{K + \hat\delta I} \, (Y - f_0(X)),
        \qquad \hat\delta = \delta \, \mathrm{tr} K / n

    The flow is of the *sum* of half squares, :math:`\dot\theta = \sum_i J_i^T (y_i - f(x_i))`, less
    :math:`\hat\delta (\theta - \theta_0)`; a discrete run with rate η on the mean over n samples reaches t = η·steps/n.
    At δ = 0 and t = ∞ it is interpolation by the pseudo-inverse.

    The kernel's size says what it is. With n × n entries it is a scalar kernel κ (pseudo-NTK, trace, analytic), which
    stands for :math:`\kappa \otimes I` and serves all outputs at once; with n·C × n·C it is the full one, sample-major.

    Args:
        kernel: as :class:`~tangrams.learners.base.KernelMixin` says.
        delta: the ridge in units of the Gram's mean diagonal.
        time: t, how long the flow runs.

    Attributes:
        dual_coef_: what the cross products are multiplied with: ``(n, C)``.
        X_fit_: what cross products are taken with; None for a precomputed kernel.

    Shape:
        ``X (n, d)``, ``y (n,)`` or ``(n, C)`` → predictions like ``y``.

    Example:
        >>> model = LinearizedRegressor().fit([[1.0, 0.0], [0.0, 1.0]], [2.0, 3.0])
        >>> [round(float(v), 6) for v in model.predict([[1.0, 1.0]])]
        [5.0]
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        kernel: HasGram | Literal["precomputed"] | None = None,
        *,
        delta: float = 0.0,
        time: float = math.inf,
    ) -> None:
        self.kernel = kernel
        self.delta = delta
        self.time = time

    def fit(self, X: Any, y: Any, offset: Any | None = None) -> LinearizedRegressor:
        """Fit to targets.

        Args:
            X: samples.
            y: ``(n,)`` or ``(n, C)``.
            offset: f₀(X), the network's own outputs, like ``y``; zero when absent.

        Raises:
            ValueError: for δ or t below zero, a Gram that fits neither n nor n·C rows, or an offset unlike ``y``.
        """
        if not self.delta >= 0:
            raise ValueError(f"LinearizedRegressor expects delta ≥ 0, got {self.delta}")
        if not self.time >= 0:
            raise ValueError(f"LinearizedRegressor expects time ≥ 0, got {self.time}")
        K = self._fit_gram(X)
        y = as_targets(self, None, y, multi_output=True)
        self._flat_ = y.ndim == 1
        self._offset_ = offset is not None
        targets = torch.from_numpy(y.reshape(len(y), -1).astype(np.float64))
        n, C = targets.shape
        if K.shape[0] not in (n, n * C):
            raise ValueError(
                f"LinearizedRegressor got inconsistent numbers of samples: a Gram of {K.shape[0]} rows, {n} targets of "
                f"{C} outputs; it takes n or n·C rows"
            )
        if offset is not None:
            targets = targets - self._offset(offset, n, C)
        self._full_ = K.shape[0] != n
        columns = targets.reshape(-1, 1) if self._full_ else targets
        self.dual_coef_ = flow_coefficients(K, columns, self.delta, self.time).reshape(n, C).numpy()
        return self

    def predict(self, X: Any, offset: Any | None = None) -> np.ndarray:
        """The prediction, like the targets of the fit.

        Args:
            X: samples.
            offset: f₀(X), exactly when ``fit`` was given one.

        Raises:
            ValueError: if an offset is missing, or was not there in ``fit``.
        """
        check_is_fitted(self, "dual_coef_")
        if (offset is not None) != self._offset_:
            there = "with" if self._offset_ else "without"
            raise ValueError(f"LinearizedRegressor was fitted {there} an offset f₀: predict {there} one")
        K = self._cross_gram(X)
        dual = torch.from_numpy(self.dual_coef_)
        C = dual.shape[1]
        change = (K @ dual.reshape(-1, 1)).reshape(-1, C) if self._full_ else K @ dual
        if offset is not None:
            change = change + self._offset(offset, len(change), C)
        answer = change.numpy()
        return answer[:, 0] if self._flat_ else answer

    def _offset(self, offset: Any, n: int, C: int) -> Tensor:
        values = torch.as_tensor(offset).detach().cpu().to(torch.float64)
        if values.numel() != n * C or len(values) != n:
            raise ValueError(f"LinearizedRegressor expects an offset for {n} × {C} outputs, got {tuple(values.shape)}")
        return values.reshape(n, C)


def flow_coefficients(
    K: Float[Tensor, "n n"], residual: Float[Tensor, "n C"], delta: float, time: float
) -> Float[Tensor, "n C"]:
    r"""``(I − e^{−(K + δ̂ I) t}) (K + δ̂ I)⁻¹ r`` with δ̂ = δ tr K / n, in float64.

    At t = ∞ by Cholesky where that solves the system, else by the eigenvectors, zero on the null space.

    Args:
        K: a symmetric positive semi-definite Gram matrix.
        residual: r.
        delta: the ridge in units of the mean diagonal.
        time: t; may be infinite.
    """
    n = len(K)
    ridge = delta * float(K.diagonal().mean())
    if math.isinf(time):
        A = K + ridge * torch.eye(n, dtype=K.dtype, device=K.device)
        L, info = torch.linalg.cholesky_ex(A)
        if int(info) == 0:
            alpha = torch.cholesky_solve(residual, L)
            if float((A @ alpha - residual).norm()) <= _RESIDUAL * float(residual.norm()):
                return alpha
    eigenvalues, U = torch.linalg.eigh((K + K.mT) / 2)
    eigenvalues = eigenvalues.clamp_min(0) + ridge
    null = eigenvalues <= n * torch.finfo(K.dtype).eps * eigenvalues[-1]
    if math.isinf(time):
        gain = torch.where(null, torch.zeros_like(eigenvalues), 1 / torch.where(null, 1.0, eigenvalues))
    else:
        # On the null space the gain's limit is t; expm1 keeps it exact for small λ t.
        gain = torch.where(null, time, -torch.expm1(-eigenvalues * time) / torch.where(null, 1.0, eigenvalues))
    return U @ (gain[:, None] * (U.mT @ residual))
