"""Kernel gradient flow: what gradient descent does to a network whose tangent kernel stays put."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import HasGram, KernelMixin, as_targets
from tangrams.operators.ridge import GramSpectrum


class Posterior(NamedTuple):
    """The law of an ensemble's outputs.

    Attributes:
        mean: ``(m,)`` or ``(m, C)``, like the targets.
        covariance: between samples, the same for every output: ``(m, m)``.
    """

    mean: np.ndarray
    covariance: np.ndarray


class KernelGradientFlow(MultiOutputMixin, RegressorMixin, KernelMixin, BaseEstimator):
    r"""Gradient flow on the squared loss, in function space, stopped at any time [055].

    With a constant tangent kernel Θ and the loss

    .. math:: \frac{1}{2n} \sum_i |f(x_i) - y_i|^2 + \frac{δ}{2n} |θ - θ_0|^2

    of n samples, the outputs at time t are

    .. math:: f_t(x) = f_0(x) + Θ(x, X)\, (Θ + δI)^{-1} \left(I - e^{-η t (Θ + δ I)/n}\right) (Y - f_0(X))

    In the eigenbasis of Θ each component of the residual decays by itself, at the rate η(λ_i + δ)/n: early stopping is
    one decomposition for all times. At t = ∞ this is kernel regression, ridgeless for δ = 0. Components along
    eigenvalues of zero are never learned. A network trained by gradient descent with rate η for t/η steps follows it as
    its widths grow.

    Args:
        kernel: Θ: an object with ``gram`` and ``diag`` such as :class:`~tangrams.kernels.FullyConnectedNTK`,
            ``"precomputed"``, or None for the inner products of feature rows. With n·C rows per n samples
            (sample-major) the C outputs learn together.
        time: t, when :meth:`predict` is not told.
        learning_rate: η.
        ridge: δ, in units of the kernel and not multiplied by n.

    Attributes:
        spectrum_: the eigenvalues and eigenvectors of Θ on the training samples.
        rank_: how many eigenvalues are above rounding.
        max_learning_rate_: 2n / (λ_max + δ): above it discrete steps of this size diverge.

    Shape:
        ``X`` of n samples, ``y (n,)`` or ``(n, C)`` → predictions like ``y``.

    Example:
        >>> flow = KernelGradientFlow().fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.0])
        >>> [round(float(value), 3) for value in flow.predict([[3.0]], t=0.3)]
        [1.18]
    """

    @no_type_check  # scikit-learn sets anything, and judges in fit
    def __init__(
        self,
        kernel: HasGram | Literal["precomputed"] | None = None,
        *,
        time: float = math.inf,
        learning_rate: float = 1.0,
        ridge: float = 0.0,
    ) -> None:
        self.kernel = kernel
        self.time = time
        self.learning_rate = learning_rate
        self.ridge = ridge

    def fit(self, X: Any, y: Any, f0: Any = None) -> KernelGradientFlow:
        """Decompose the kernel on the training samples.

        Args:
            X: the training samples.
            y: targets, ``(n,)`` or ``(n, C)``.
            f0: outputs at the start, like y; zero by default.

        Raises:
            ValueError: if a parameter is out of its range, shapes do not fit, or the kernel has negative eigenvalues.
        """
        if not (self.learning_rate > 0 and self.ridge >= 0):
            raise ValueError(
                f"KernelGradientFlow needs learning_rate > 0 and ridge ≥ 0, got {self.learning_rate} and {self.ridge}"
            )
        self._check_time(self.time)
        K = self._fit_gram(X)
        targets = self._outputs(y, "y")
        self._flat = targets.ndim == 1
        columns = targets.reshape(len(targets), -1)
        n, outputs = columns.shape
        if len(K) not in (n, n * outputs):
            raise ValueError(
                f"KernelGradientFlow got a kernel of {len(K)} rows for targets {tuple(targets.shape)}: it needs "
                f"{n} (outputs apart) or {n * outputs} (outputs together)"
            )
        self._num_samples, self._joint = n, len(K) == n * outputs and outputs > 1
        self._starts_at_zero = f0 is None
        start = torch.zeros_like(columns) if f0 is None else self._outputs(f0, "f0").reshape(n, -1)
        if start.shape != columns.shape:
            raise ValueError(f"KernelGradientFlow got f0 {tuple(start.shape)} for targets {tuple(columns.shape)}")
        residual = columns - start
        self._outputs_per_sample = outputs
        self.spectrum_ = _spectrum(K)
        self.rank_ = int((self.spectrum_.eigenvalues > self._cutoff()).sum())
        largest = float(self.spectrum_.eigenvalues[-1]) + self.ridge
        self.max_learning_rate_ = 2 * n / largest if largest > 0 else math.inf
        self._residual = residual.reshape(-1, 1) if self._joint else residual
        self._components = self.spectrum_.eigenvectors.mT @ self._residual
        self._targets = columns.reshape(-1, 1) if self._joint else columns
        return self

    def predict(self, X: Any, t: float | None = None, f0: Any = None) -> np.ndarray:
        """The outputs at time t.

        Args:
            X: new samples.
            t: the time, ``math.inf`` included; the estimator's own by default.
            f0: outputs of the start at X; needed where ``fit`` was given its own.

        Raises:
            ValueError: if ``t < 0``, or the start at X is missing or does not fit.
        """
        check_is_fitted(self, "spectrum_")
        gain = self._gain(self.time if t is None else t)
        dual = self.spectrum_.eigenvectors @ (gain[:, None] * self._components)
        change = (self._cross_gram(X) @ dual).reshape(-1, self._outputs_per_sample)
        if f0 is None and not self._starts_at_zero:
            raise ValueError("KernelGradientFlow was fitted with f0: predict needs the start's outputs at X, f0=")
        if f0 is not None:
            start = self._outputs(f0, "f0").reshape(-1, self._outputs_per_sample)
            if len(start) != len(change):
                raise ValueError(f"KernelGradientFlow got f0 of {len(start)} samples for {len(change)} in X")
            change = change + start
        out = change.numpy()
        return out[:, 0] if self._flat else out

    def gp_posterior(
        self, X: Any, t: float | None = None, *, prior: HasGram | tuple[Any, Any, Any] | None = None
    ) -> Posterior:
        r"""The law over random starts: an ensemble of wide networks at time t.

        With a start of mean zero and covariance K, and A = Θ(x, X)(Θ + δI)⁻¹(I − e^{−ηt(Θ+δI)/n}),

        .. math:: \mathrm{mean} = A Y, \qquad
                  \mathrm{cov} = K_{**} + A K A^⊤ - A K_{X*} - (A K_{X*})^⊤

        Where Θ is K itself (training the last layer alone) and t = ∞, it is the posterior of a Gaussian process.

        Args:
            X: new samples.
            t: the time; the estimator's own by default.
            prior: K as a kernel, or its three blocks ``K(X_fit, X_fit)``, ``K(X, X_fit)``, ``K(X, X)``; by default
                the ``nngp`` of the kernel.

        Raises:
            ValueError: if no prior is known, the outputs learn together, or blocks do not fit.
        """
        check_is_fitted(self, "spectrum_")
        if self._joint:
            raise ValueError("gp_posterior needs a kernel with one row per sample: the outputs here learn together")
        gain = self._gain(self.time if t is None else t)
        U = self.spectrum_.eigenvectors
        A = ((self._cross_gram(X) @ U) * gain) @ U.mT
        own, cross, new = self._prior_blocks(X, prior)
        n, m = len(U), len(A)
        if own.shape != (n, n) or cross.shape != (m, n) or new.shape != (m, m):
            shapes = [tuple(block.shape) for block in (own, cross, new)]
            raise ValueError(f"gp_posterior needs prior blocks ({n}, {n}), ({m}, {n}), ({m}, {m}), got {shapes}")
        mixed = A @ cross.mT
        covariance = new + A @ own @ A.mT - mixed - mixed.mT
        mean = (A @ self._targets).numpy()
        return Posterior(mean[:, 0] if self._flat else mean, ((covariance + covariance.mT) / 2).numpy())

    def _gain(self, t: float) -> Tensor:
        """(1 − e^{−ηt(λ+δ)/n}) / (λ + δ) per eigenvalue, zero where Θ's own is rounding."""
        self._check_time(t)
        rate = self.spectrum_.eigenvalues + self.ridge
        learned = self.spectrum_.eigenvalues > self._cutoff()
        safe = torch.where(learned, rate, 1.0)
        done = (
            torch.ones_like(safe) if math.isinf(t) else -torch.expm1(-self.learning_rate * t / self._num_samples * safe)
        )
        return torch.where(learned, done / safe, 0.0)

    def _cutoff(self) -> float:
        values = self.spectrum_.eigenvalues
        return len(values) * torch.finfo(values.dtype).eps * float(values[-1])

    def _check_time(self, t: float) -> None:
        if not t >= 0:
            raise ValueError(f"KernelGradientFlow needs a time t ≥ 0, got {t}")

    def _outputs(self, values: Any, name: str) -> Tensor:
        if values is not None and name != "y" and not np.isfinite(np.asarray(values)).all():
            raise ValueError(f"KernelGradientFlow: {name} has NaN or infinity")
        return torch.from_numpy(as_targets(self, None, values, multi_output=True).astype(np.float64))

    def _prior_blocks(self, X: Any, prior: HasGram | tuple[Any, Any, Any] | None) -> list[Tensor]:
        if isinstance(prior, tuple):
            return [torch.as_tensor(block, dtype=torch.float64) for block in prior]
        kernel: HasGram | None = getattr(self.kernel, "nngp", None) if prior is None else prior
        if kernel is None or self.X_fit_ is None:
            raise ValueError(
                "gp_posterior needs the covariance of the start: a kernel with an nngp, prior=kernel, or for a "
                "precomputed kernel prior=(K(X_fit, X_fit), K(X, X_fit), K(X, X))"
            )
        samples = self._read_samples(X, reset=False)
        blocks = kernel.gram(self.X_fit_), kernel.gram(samples, self.X_fit_), kernel.gram(samples)
        return [self._checked(block) for block in blocks]


def _spectrum(K: Tensor) -> GramSpectrum:
    """The spectrum of a kernel matrix, or an error where it is none."""
    trace = float(K.diagonal().sum())
    if trace == 0 and not K.any():
        return GramSpectrum(torch.zeros(len(K), dtype=K.dtype), torch.eye(len(K), dtype=K.dtype), 1.0)
    spectrum = GramSpectrum.of(K) if trace > 0 else None
    # Eigenvalues below zero are clamped there; what the trace is missing was negative.
    if spectrum is None or float(spectrum.eigenvalues.sum()) - trace > 1e-6 * trace:
        raise ValueError("KernelGradientFlow got a kernel matrix with negative eigenvalues: it is no kernel")
    return spectrum
