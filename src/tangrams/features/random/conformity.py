r"""What the error of coupled random features depends on: how pairs of weight vectors add up [083].

With a uniformly turned pair, :math:`E\, e^{(w + w')^T v}` depends on the length of v and the law of
:math:`s = \lVert w + w' \rVert` alone,

.. math:: ρ = E \sum_{k \ge 0} \frac{Γ(d/2)}{k!\, Γ(k + d/2)} \left(\frac{\lVert v \rVert s}{2}\right)^{2k}
            = E\; {}_0F_1\!\left(; \tfrac d2; \tfrac{\lVert v \rVert^2 s^2}{4}\right).

For two vectors at a fixed angle with cosine c and independent χ_d lengths, :math:`s^2 = r^2 (1 + c \sin φ)` with
:math:`r^2 \sim χ^2_{2d}` and, independent of it, φ of density :math:`\propto \sin^{d-1} φ` on [0, π]; the mean over r
is :math:`{}_1F_1(d; d/2; \tfrac12 \lVert v \rVert^2 (1 + c \sin φ))`, that over φ a quadrature of an analytic function.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

from tangrams.data.quadrature import gauss_legendre

_NODES = 64
"""Nodes of the quadrature over the angle; its weight is cut where it is below e^-50."""

_BINS = 1 << 11
"""Bins of squared lengths."""

_ELEMENTS = 1 << 22
"""How many terms of series are summed at once."""


def rf_conformity(W: Float[Tensor, "m d"], v: Float[Tensor, "d"] | float) -> float:
    r"""ρ of given weight vectors that are turned together, the mean over all pairs [083].

    The mean squared error of m positive features of the Gaussian kernel at x + y = v is
    :math:`e^{-2\lVert x \rVert^2 - 2\lVert y \rVert^2} [(e^{2V} - e^V) + (m - 1)(ρ - e^V)] / m`, V = ‖v‖²: the shorter
    the sums of pairs, the smaller.

    Args:
        W: the vectors.
        v: x + y, or its length.

    Raises:
        ValueError: if there are fewer than two vectors, or v has another number of entries.
    """
    m, d = W.shape
    length = torch.as_tensor(v, dtype=torch.float64)
    if m < 2 or length.shape not in ((), (d,)):
        raise ValueError(f"rf_conformity needs at least 2 vectors and a v of {d} entries, got {m} and {length.shape}")
    lengths = pair_lengths(W.double()[None])[0]
    return float(log_conformity_of_lengths(lengths, d, length.square().sum()).exp())


class Lengths(NamedTuple):
    """The law of a squared length.

    Attributes:
        squares: its values.
        probabilities: theirs.
    """

    squares: Float[Tensor, "q"]
    probabilities: Float[Tensor, "q"]


def pair_lengths(W: Float[Tensor, "g m d"]) -> tuple[Lengths, Lengths]:
    """The laws of ‖w + w′‖² and ‖w − w′‖² over all pairs of vectors of a group.

    Where there are many pairs, of bins that are too narrow to be told from them.

    Args:
        W: groups of vectors, in rows.
    """
    m = W.shape[1]
    i, j = torch.triu_indices(m, m, 1)
    norms = W.square().sum(-1)
    both, product = norms[:, i] + norms[:, j], 2 * (W @ W.mT)[:, i, j]
    return _binned((both + product).clamp_min(0).flatten()), _binned((both - product).clamp_min(0).flatten())


def _binned(squares: Float[Tensor, "p"]) -> Lengths:
    if len(squares) <= _BINS:
        return Lengths(squares, torch.full_like(squares, 1 / len(squares)))
    low, high = squares.aminmax()
    index = ((squares - low) * (_BINS / (high - low).clamp_min(1e-300))).long().clamp_max(_BINS - 1)
    counts = torch.bincount(index, minlength=_BINS)
    means = torch.bincount(index, weights=squares, minlength=_BINS) / counts.clamp_min(1)
    return Lengths(means[counts > 0], counts[counts > 0] / len(squares))


def log_conformity_of_lengths(lengths: Lengths, d: int, square: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Log ρ from the law of ‖w + w′‖².

    Args:
        lengths: their law.
        d: the dimension in which pairs are turned.
        square: ‖v‖².
    """
    z = square[..., None] * lengths.squares / 4
    return torch.logsumexp(log_series(None, d / 2, z) + lengths.probabilities.log(), -1)


def cosine_conformity_of_lengths(
    lengths: tuple[Lengths, Lengths], d: int, square: Float[Tensor, "*b"]
) -> Float[Tensor, "*b"]:
    """E cos(w·v) cos(w′·v) from the laws of ‖w ± w′‖².

    Args:
        lengths: of the sums and of the differences.
        d: the dimension in which pairs are turned.
        square: ‖v‖².
    """
    means = []
    for law in lengths:
        z = -square[..., None] * law.squares / 4
        means.append((torch.from_numpy(special.hyp0f1(d / 2, z.numpy())) * law.probabilities).sum(-1))
    return (means[0] + means[1]) / 2


def equiangular_log_conformity(d: int, cosine: float, square: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Log ρ of vectors at one angle with independent χ lengths; at right angles ₁F₁(d; d/2; ‖v‖²/2).

    Args:
        d: the dimension in which they are turned, and the degrees of freedom of their lengths.
        cosine: between any two directions.
        square: ‖v‖².
    """
    sines, weights = _angles(d)
    z = square[..., None] / 2 * (1 + cosine * sines)
    return torch.logsumexp(log_series(float(d), d / 2, z) + weights.log(), -1)


def equiangular_cosine_conformity(d: int, cosine: float, square: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """E cos(w·v) cos(w′·v) of vectors at one angle: the mean of ρ at −‖v‖² for their sum and their difference.

    Args:
        d: the dimension in which they are turned, and the degrees of freedom of their lengths.
        cosine: between any two directions.
        square: ‖v‖².
    """
    sines, weights = _angles(d)
    z = -square[..., None] / 2
    both = [torch.from_numpy(special.hyp1f1(d, d / 2, (z * (1 + s * cosine * sines)).numpy())) for s in (1, -1)]
    return ((both[0] + both[1]) / 2 * weights).sum(-1)


def log_series(a: float | None, b: float, z: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """Log of ₁F₁(a; b; z), or of ₀F₁(; b; z) where a is None, for z ≥ 0: a sum of positive terms.

    Args:
        a: upper parameter, at most 2 b.
        b: lower parameter.
        z: float64.
    """
    if not z.numel():
        return z
    flat = z.flatten()
    peak = 2 * float(flat.max()) if a is not None else math.sqrt(float(flat.max()))
    k = torch.arange(math.ceil(peak + 12 * math.sqrt(peak) + 60), dtype=torch.float64)
    logs = torch.lgamma(torch.tensor(b, dtype=torch.float64)) - torch.lgamma(k + b) - torch.lgamma(k + 1)
    if a is not None:
        logs += torch.lgamma(k + a) - torch.lgamma(torch.tensor(a, dtype=torch.float64))
    step = max(1, _ELEMENTS // len(k))
    parts = [torch.logsumexp(logs + torch.xlogy(k, part[:, None]), 1) for part in flat.split(step)]
    return torch.cat(parts).reshape(z.shape)


def _angles(d: int) -> tuple[Tensor, Tensor]:
    """Sin φ at the nodes of a quadrature over φ, and the probabilities of its density ∝ sin^(d−1) φ."""
    half = min(math.pi / 2, 10 / math.sqrt(max(d - 1, 1)))  # sin^(d−1) < e^-50 beyond
    nodes, weights = gauss_legendre(_NODES)
    sines = torch.sin(math.pi / 2 + half * nodes).clamp_min(0)
    probabilities = weights * sines ** (d - 1)
    return sines, probabilities / probabilities.sum()
