"""A task whose spectrum and coefficients are known."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.lens.eigenframework.risk import ridge_risk
from tangrams.lens.eigenframework.structure import Eigenstructure


@dataclass(frozen=True, eq=False)
class EigenTask(Eigenstructure):
    r"""A target :math:`f = \sum_i v_i φ_i` under a kernel :math:`\sum_i λ_i φ_i φ_i`, with noise on its labels [006].

    Args:
        eigenvalues: λ, descending, all positive.
        coefficients: v, or one column per output.
        noise_variance: σ², summed over outputs; what no eigenfunction explains belongs here too.

    Shape:
        ``(M,)``, and ``(M,)`` or ``(M, C)``.

    Raises:
        ValueError: for eigenvalues that are not positive, finite and descending, coefficients of another number, or a
            negative variance.

    Example:
        >>> task = EigenTask(torch.tensor([1.0, 0.5]), torch.tensor([1.0, 0.0]), noise_variance=0.1)
        >>> task.degrees(0.5)
        (1.1666666666666665, 0.6944444444444444)
    """

    eigenvalues: Float[Tensor, "M"]
    coefficients: Float[Tensor, "..."]
    noise_variance: float = 0.0
    _lam: Tensor = field(init=False, repr=False)
    _power: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lam = self.eigenvalues.to(torch.float64)
        if lam.ndim != 1 or not len(lam):
            raise ValueError(f"EigenTask expects a vector of eigenvalues, got shape {tuple(lam.shape)}")
        if not bool((lam > 0).all() and lam.isfinite().all()):
            bad = int((~((lam > 0) & lam.isfinite())).nonzero()[0])
            raise ValueError(f"EigenTask expects positive eigenvalues, got {float(lam[bad])} at {bad}: cut there")
        if bool((lam.diff() > 0).any()):
            raise ValueError("EigenTask expects eigenvalues in descending order: sort them with their coefficients")
        if len(self.coefficients) != len(lam):
            raise ValueError(f"EigenTask got {len(lam)} eigenvalues and {len(self.coefficients)} coefficients")
        if not 0 <= self.noise_variance < math.inf:
            raise ValueError(f"EigenTask expects a noise variance ≥ 0, got {self.noise_variance}")
        power = self.coefficients.to(torch.float64).square().reshape(len(lam), -1).sum(1)
        if not bool(power.isfinite().all()):
            raise ValueError("EigenTask got coefficients that are not finite")
        object.__setattr__(self, "_lam", lam)
        object.__setattr__(self, "_power", power)

    @classmethod
    def from_gram(
        cls, K: Float[Tensor, "N N"], y: Float[Tensor, "N"] | Float[Tensor, "N C"], *, noise_variance: float = 0.0
    ) -> EigenTask:
        """The eigensystem of one sample, taken for that of the population: λ = eig(K) / N, v = Uᵀ y / √N.

        Too hopeful: on images, without a ridge, a tenth too low at N/10 samples, a fifth at N/5, half at N/2, and no
        error at all at N. :class:`~tangrams.lens.eigenframework.GramTask` is within a few percent at all of them.

        Args:
            K: a Gram matrix.
            y: the targets at its samples.
            noise_variance: what is known to be noise. Targets outside the range of K are added to it.

        Raises:
            ValueError: if K is not square and positive semi-definite, or y has another length.
        """
        if K.ndim != 2 or K.shape[0] != K.shape[1] or len(y) != len(K):
            raise ValueError(f"EigenTask.from_gram expects K (N, N) and N targets, got {tuple(K.shape)} and {len(y)}")
        N = len(K)
        values, U = torch.linalg.eigh(K.to(torch.float64))
        rounding = N * torch.finfo(K.dtype).eps * float(values.abs().max())
        if float(values[0]) < -1e-3 * float(values[-1]):
            raise ValueError(f"EigenTask.from_gram got an eigenvalue {float(values[0]):.3g}: K is no Gram matrix")
        if float(values[0]) < -rounding:
            warnings.warn(f"clipped eigenvalues down to {float(values[0]):.3g}", stacklevel=2)
        values, U = values.flip(0), U.flip(1)
        coefficients = U.mT @ y.to(torch.float64).reshape(N, -1) / math.sqrt(N)
        kept = int((values > rounding).sum())
        lost = float(coefficients[kept:].square().sum())
        return cls(values[:kept] / N, coefficients[:kept].reshape(kept, *y.shape[1:]), noise_variance + lost)

    @classmethod
    def power_law(cls, alpha: float, beta: float, size: int, *, noise_variance: float = 0.0) -> EigenTask:
        """The task with λ_i = i^−α and v_i² = i^−β for i = 1 … M.

        Args:
            alpha: α > 1.
            beta: β.
            size: M.
            noise_variance: σ².
        """
        ranks = torch.arange(1, size + 1, dtype=torch.float64)
        return cls(ranks**-alpha, ranks ** (-beta / 2), noise_variance)

    def with_relative_noise(self, ratio: float, n: int) -> EigenTask:
        """The same task with noise of ``ratio`` times its noiseless ridgeless risk at n samples.

        Args:
            ratio: σ²_rel.
            n: the number of samples.
        """
        clean = replace(self, noise_variance=0.0)
        return replace(self, noise_variance=ratio * ridge_risk(clean, n, 0.0).test)

    @property
    def trace(self) -> float:  # type: ignore[override]
        """Σ λ."""
        return float(self._lam.sum())

    @property
    def rank(self) -> float:  # type: ignore[override]
        """M."""
        return float(len(self._lam))

    def learnabilities(self, kappa: float) -> Float[Tensor, "M"]:
        """λ / (λ + κ): the share of each coefficient that is learned, on the average over samples."""
        return self._lam / (self._lam + kappa)

    def degrees(self, kappa: float) -> tuple[float, float]:
        """``(z, q)``: sums of the learnabilities and of their squares."""
        learned = self.learnabilities(kappa)
        return float(learned.sum()), float(learned.square().sum())

    def errors(self, kappa: float) -> tuple[float, float]:
        """``(b₁, b₂)``: what is left of the target at κ, once and twice, and the noise."""
        left = kappa / (self._lam + kappa)
        return (
            self.noise_variance + float(left @ self._power),
            self.noise_variance + float(left.square() @ self._power),
        )
