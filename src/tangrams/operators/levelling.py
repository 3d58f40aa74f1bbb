"""Lifting or levelling the leading eigenvalues of a Gram matrix [016]."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_ZERO = 1e-12
"""Eigenvalues below this share of the largest are zero."""


def spectral_transform(
    K: Float[Tensor, "g g"], end: int, pivot: int | None = None, *, start: int = 0
) -> Float[Tensor, "g g"]:
    r"""The matrix S that gives a block of eigenvalues of K one value, :math:`λ_{pivot}`, in ``K S``.

    .. math:: S = I - \sum_{i = start}^{end - 1} \Big(1 - \frac{λ_{pivot}}{λ_i}\Big) v_i v_i^⊤

    with :math:`λ_0 ≥ λ_1 ≥ …`; all other eigenvalues stay. S is symmetric, commutes with K and is computed in float64,
    without gradients. The block ends at the first eigenvalue that is zero, below 1e-12 of the largest; a pivot there is
    the last one that is not.

    Args:
        K: symmetric, positive semi-definite.
        end: one past the last index of the block.
        pivot: the index that all take the value of. ``end``, the default, levels the block to the value behind it, so
            that larger rates are stable; 0 lifts it to the largest.
        start: the first index of the block.

    An index out of range is a ``ValueError``.

    Raises:
        FloatingPointError: if K is not finite.

    Example:
        >>> K = torch.diag(torch.tensor([4.0, 2.0, 1.0]))
        >>> (K @ spectral_transform(K, end=2)).diagonal()
        tensor([1., 1., 1.])

    [016] Inductive Gradient Adjustment.
    """
    g = len(K)
    pivot = check_block("spectral_transform", g, start, end, pivot)
    K64 = K.detach().to(torch.float64)
    if not bool(torch.isfinite(K64).all()):
        raise FloatingPointError("spectral_transform got a Gram matrix with entries that are not finite")
    values, vectors = torch.linalg.eigh((K64 + K64.mT) / 2)
    values, vectors = values.flip(0), vectors.flip(1)
    rank = int((values > _ZERO * values[0].clamp_min(0)).sum())
    if not rank:
        return torch.eye(g, dtype=K.dtype, device=K.device)
    target = values[min(pivot, rank - 1)]
    block = slice(start, min(end, rank))
    shrink = vectors[:, block] * (1 - target / values[block])
    return (torch.eye(g, dtype=torch.float64, device=K.device) - shrink @ vectors[:, block].mT).to(K.dtype)


def check_block(who: str, g: int, start: int, end: int, pivot: int | None) -> int:
    """The pivot of a block of g eigenvalues, if all indices are in range.

    Args:
        who: is named in the message.
        g: how many eigenvalues there are.
        start: the first index of the block.
        end: one past the last.
        pivot: ``end`` for None.

    Raises:
        ValueError: if they are not.
    """
    pivot = end if pivot is None else pivot
    if not 0 <= start < end <= g or not 0 <= pivot < g:
        raise ValueError(
            f"{who} levels modes {start} … {end - 1} to mode {pivot}, of 0 … {g - 1}: it needs smaller groups, fewer "
            "modes or another pivot"
        )
    return pivot
