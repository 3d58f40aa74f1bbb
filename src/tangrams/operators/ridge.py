"""Ridge regression on a Gram matrix from one eigendecomposition: any ridge, the hat matrix, leave-one-out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

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
