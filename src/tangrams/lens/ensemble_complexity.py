"""How many wide networks must be averaged before their rounded outputs are an exact permutation of the bits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Threshold = Callable[[int, Tensor], Tensor]
"""``(k, ones) -> thresholds``: what an output must exceed to be a one, by how many ones the input has."""


@dataclass(frozen=True)
class PermutationMoments:
    """The law of a wide network's outputs on binary inputs, before they are permuted.

    Attributes:
        inside: mean where the input has a one.
        outside: mean where it has a zero.
        variance: of every output over networks.
    """

    inside: Tensor
    outside: Tensor
    variance: Tensor


def permutation_moments(k: int, ones: Tensor) -> PermutationMoments:
    r"""The Gaussian that a two-layer ReLU network of infinite width converges to on a binary input [045].

    The network in NTK parametrisation was trained to zero squared loss on the k basis vectors. With m ones in the
    input, a = √(m−1) + 2(π − arccos 1/√m) where it has one, b = √m where not, and q = m a + (k−m) b, the means are

    .. math:: μ = \frac{1}{2π - 1} \left(a - \frac{q}{2π - 1 + k}\right), \qquad
              \frac{1}{2π - 1} \left(b - \frac{q}{2π - 1 + k}\right)

    The first is positive, the second negative but for m = 1, the training points, where it is zero.

    Args:
        k: bits, at least 2.
        ones: m, ``(…,)`` integers from 1 to k.

    Shape:
        each attribute like ``ones``, float64.

    Raises:
        ValueError: if ``k < 2``, or an input has no ones or more than k.
    """
    if k < 2:
        raise ValueError(f"permutation_moments needs k ≥ 2 bits, got {k}")
    m = ones.to(torch.float64)
    if m.numel() and not (float(m.min()) >= 1 and float(m.max()) <= k):
        raise ValueError(f"permutation_moments needs inputs with 1 to {k} ones: the zero input is not learned")
    two_pi = 2 * math.pi
    angle = math.pi - (1 / m.sqrt()).acos()
    a, b = (m - 1).sqrt() + 2 * angle, m.sqrt()
    q = m * a + (k - m) * b
    inside, outside = ((side - q / (two_pi - 1 + k)) / (two_pi - 1) for side in (a, b))
    # Var = K(x, x) + A K(X, X) Aᵀ − 2 A K(X, x), where A has the two means as entries.
    own = m / (2 * k)
    total = m * inside + (k - m) * outside
    squares = m * inside**2 + (k - m) * outside**2
    middle = (0.5 - 1 / two_pi) / k * squares + total**2 / (two_pi * k)
    cross = (m * inside * ((m - 1).sqrt() + angle) + (k - m) * outside * b) / (two_pi * k)
    variance = (own + middle - 2 * cross).clamp_min(0)
    return PermutationMoments(inside, outside, torch.where(m == 1, 0.0, variance))


def sign_threshold(k: int, ones: Tensor) -> Tensor:
    """Zero: an output is a one if it is positive, whatever the input [045]."""
    return torch.zeros(ones.shape, dtype=torch.float64)


def midpoint_threshold(k: int, ones: Tensor) -> Tensor:
    """Halfway between the two means that inputs with as many ones have."""
    moments = permutation_moments(k, ones)
    return (moments.inside + moments.outside) / 2


def ensemble_size(k: int, delta: float, *, num_inputs: int | None = None, threshold: Threshold = sign_threshold) -> int:
    r"""Networks to average so that all bits of all inputs are right with probability 1 − δ [045].

    .. math:: N = \max_m \left\lceil \frac{2 σ_m^2}{g_m^2} \ln \frac{k\, M}{δ} \right\rceil

    for M inputs, with σ² the variance of an output and g its distance from the threshold, for the worst number m of
    ones. It grows like k log k for one input and like k² for all of them.

    Args:
        k: bits.
        delta: δ, the probability of any error.
        num_inputs: M; None for all 2^k − 1 nonzero inputs.
        threshold: how outputs are rounded.

    Raises:
        ValueError: if ``k < 2``, δ is not in (0, 1), or ``num_inputs < 1``.

    Example:
        >>> ensemble_size(10, 0.01, num_inputs=1), ensemble_size(20, 0.01, num_inputs=1)
        (929, 1383)
    """
    if not 0 < delta < 1:
        raise ValueError(f"ensemble_size needs 0 < delta < 1, got {delta}")
    if num_inputs is not None and num_inputs < 1:
        raise ValueError(f"ensemble_size needs num_inputs ≥ 1, got {num_inputs}")
    ones = torch.arange(2, k + 1)
    moments = permutation_moments(k, ones)
    cut = threshold(k, ones)
    gap = torch.where(ones < k, torch.minimum(moments.inside - cut, cut - moments.outside), moments.inside - cut)
    inputs = math.log(num_inputs) if num_inputs is not None else k * math.log(2) + math.log1p(-(2.0**-k))
    worst = float((2 * moments.variance / gap**2).max())
    return max(1, math.ceil(worst * (math.log(k / delta) + inputs)))
