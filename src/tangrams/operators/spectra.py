"""Numbers that describe a spectrum: power laws over ranks, heavy tails, effective ranks.

Every function takes eigenvalues in any order unless it says otherwise, in float64, and returns a float.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.operators.eigen import eigsh

_ZERO = 1e-5
"""Eigenvalues below this share of the largest are rank deficiency, not tail."""


def gram_spectrum(gram: Float[Tensor, "n n"] | LinearOperator, k: int | None = None) -> Float[Tensor, "k"]:
    """Eigenvalues of a Gram matrix, descending, rounding below zero clamped.

    Args:
        gram: a positive semi-definite matrix, dense or an operator.
        k: how many of the largest; all by default.
    """
    return eigsh(gram, k).values.clamp_min(0)


def hill_alpha(eigenvalues: Float[Tensor, "k"], *, tail: float = 0.5) -> float:
    r"""Exponent α of the density ``p(λ) ∝ λ^-α`` of the upper tail, by Hill's maximum likelihood [043].

    On ascending eigenvalues ``l_1 … l_k`` without zeros, with tail start ``i = ⌊k (1 − tail)⌋`` and ``n = k − i``,
    ``α = 1 + n / (Σ_{j ≥ i} ln l_j − n ln l_i)`` (indices from 0). A random matrix's bulk has a larger α, a heavy
    tail a smaller one.

    Args:
        eigenvalues: non-negative; those below 1e-5 of the largest are dropped first.
        tail: the share of the spectrum that counts as tail.

    Raises:
        ValueError: if fewer than two positive eigenvalues are left, one is not finite, or the tail is flat.

    Example:
        >>> round(hill_alpha(torch.arange(1, 101, dtype=torch.float64) ** -1.0), 2)
        2.06
    """
    if not 0 < tail <= 1:
        raise ValueError(f"hill_alpha needs 0 < tail ≤ 1, got {tail}")
    logs = _positive(eigenvalues, "hill_alpha").log().sort().values
    start = math.floor(len(logs) * (1 - tail))
    if start >= len(logs):
        raise ValueError(f"hill_alpha: a tail of {tail} of {len(logs)} eigenvalues is empty")
    excess = float((logs[start:] - logs[start]).sum())
    if excess <= 0:
        raise ValueError("hill_alpha: all eigenvalues of the tail are equal, which no power law has")
    return 1 + (len(logs) - start) / excess


class PowerLaw(NamedTuple):
    """``λ_i ≈ scale · i^-exponent`` over a window of ranks.

    Attributes:
        exponent: minus the slope of log λ against log rank.
        scale: λ at rank 1 by the fit.
        r_squared: share of the variance of log λ that the line explains.
    """

    exponent: float
    scale: float
    r_squared: float


def fit_power_law(eigenvalues: Float[Tensor, "k"], first: int = 1, last: int | None = None) -> PowerLaw:
    """Least squares of ``log λ_i`` on ``log i`` over the ranks ``first … last``.

    A spectrum seldom is one power law: compare windows before believing an exponent.

    Args:
        eigenvalues: sorted to descending here.
        first: first rank of the window, counting from 1.
        last: last rank, inclusive; the last positive eigenvalue by default.

    Raises:
        ValueError: if the window holds fewer than two ranks, leaves the spectrum, or reaches eigenvalues that are not
            positive.
    """
    values = _finite(eigenvalues, "fit_power_law").sort(descending=True).values
    last = int((values > 0).sum()) if last is None else last
    if not 1 <= first < last <= len(values):
        raise ValueError(f"fit_power_law needs 1 ≤ first < last ≤ {len(values)}, got {first} and {last}")
    if float(values[last - 1]) <= 0:
        raise ValueError(f"fit_power_law: eigenvalue {last} is not positive: choose a smaller last")
    x = torch.arange(first, last + 1, dtype=torch.float64).log()
    y = values[first - 1 : last].cpu().log()
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx * dy).sum() / dx.square().sum())
    total = float(dy.square().sum())
    r_squared = 1 - float((dy - slope * dx).square().sum()) / total if total > 0 else 1.0
    return PowerLaw(-slope, math.exp(float(y.mean() - slope * x.mean())), r_squared)


def spectral_entropy(eigenvalues: Float[Tensor, "k"]) -> float:
    """``−Σ p_i ln p_i`` of the eigenvalues as shares of their sum: the von Neumann entropy of ``K / tr K``, in nats.

    Args:
        eigenvalues: non-negative; rounding below zero counts as zero.
    """
    values = _finite(eigenvalues, "spectral_entropy").clamp_min(0)
    if float(values.sum()) <= 0:
        raise ValueError("spectral_entropy: all eigenvalues are zero")
    share = values / values.sum()
    return float(-torch.xlogy(share, share).sum())


def effective_rank(eigenvalues: Float[Tensor, "k"]) -> float:
    """``exp`` of :func:`spectral_entropy`: how many equal eigenvalues would be as spread out (Roy and Vetterli, 2007).

    Args:
        eigenvalues: non-negative.
    """
    return math.exp(spectral_entropy(eigenvalues))


def stable_rank(eigenvalues: Float[Tensor, "k"]) -> float:
    """``Σ λ / λ_max``.

    Args:
        eigenvalues: non-negative, of ``WᵀW`` or of a Gram matrix.
    """
    values = _finite(eigenvalues, "stable_rank").clamp_min(0)
    if float(values.sum()) <= 0:
        raise ValueError("stable_rank: all eigenvalues are zero")
    return float(values.sum() / values.max())


def participation_ratio(eigenvalues: Float[Tensor, "k"]) -> float:
    """``(Σ λ)² / Σ λ²``: the effective rank by second moments.

    Args:
        eigenvalues: non-negative.
    """
    values = _finite(eigenvalues, "participation_ratio").clamp_min(0)
    if float(values.sum()) <= 0:
        raise ValueError("participation_ratio: all eigenvalues are zero")
    return float(values.sum().square() / values.square().sum())


def _finite(eigenvalues: Tensor, who: str) -> Tensor:
    values = eigenvalues.detach().to(torch.float64)
    if values.dim() != 1 or not len(values):
        raise ValueError(f"{who} needs a vector of eigenvalues, got shape {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        raise ValueError(f"{who}: eigenvalue {int((~values.isfinite()).nonzero()[0])} is not finite")
    return values


def _positive(eigenvalues: Tensor, who: str) -> Tensor:
    values = _finite(eigenvalues, who)
    values = values[values > _ZERO * values.max()]
    if len(values) < 2:
        raise ValueError(f"{who} needs at least two positive eigenvalues, got {len(values)}")
    return values
