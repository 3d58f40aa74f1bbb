"""What the eigenframework reads of a task: two curves of degrees of freedom and two of errors."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Eigenstructure(ABC):
    r"""A regression task as the risk of ridge regression sees it, at every resolution κ [006].

    With λ the eigenvalues of the kernel, v the coefficients of the target in its eigenfunctions and σ² the variance of
    the noise,

    .. math::
        z(κ) = \sum_i \frac{λ_i}{λ_i + κ}, \quad q(κ) = \sum_i \frac{λ_i^2}{(λ_i + κ)^2}, \quad
        b_1(κ) = σ^2 + \sum_i \frac{κ v_i^2}{λ_i + κ}, \quad b_2(κ) = σ^2 + \sum_i \frac{κ^2 v_i^2}{(λ_i + κ)^2}.

    A member writes them from a spectrum that is known, or from a sample.

    Attributes:
        trace: Σ λ, the mean of the kernel's diagonal.
        rank: z(0), infinite where the spectrum does not end.
    """

    trace: float
    rank: float

    @abstractmethod
    def degrees(self, kappa: float) -> tuple[float, float]:
        """``(z, q)`` at κ ≥ 0."""

    @abstractmethod
    def errors(self, kappa: float) -> tuple[float, float]:
        """``(b₁, b₂)`` at κ ≥ 0."""
