r"""Tangents of lookups in a table of weights, which they are linear in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tangrams.nn.tangent.dual import Dual, plus


def embedding(index: Tensor, weight: Dual, padding_idx: int | None = None) -> Dual:
    r"""Rows of a table: :math:`\dot y = \dot W_i`.

    The row of the padding is a constant, as in reverse mode: its tangent is zero whatever Ẇ says.

    Args:
        index: i, whole numbers.
        weight: W.
        padding_idx: the row of the padding.

    Shape:
        ``index (…)``, ``weight (V, d)`` → ``(…, d)``.
    """
    tangent = F.embedding(index, weight.tangent, padding_idx)
    if padding_idx is not None:
        tangent = tangent.masked_fill((index == padding_idx % len(weight.value))[..., None], 0.0)
    return Dual(F.embedding(index, weight.value), tangent)


def embedding_bag(index: Tensor, weight: Dual, scale: Dual, mode: str, options: dict[str, Any]) -> Dual:
    r"""Sums, means or maxima of rows of a table, the sums weighted by ``scale``.

    Args:
        index: whole numbers.
        weight: W.
        scale: a weight per index, or absent.
        mode: ``"sum"``, ``"mean"`` or ``"max"``.
        options: the other arguments of ``torch.nn.functional.embedding_bag``.

    Shape:
        ``index (B, N)`` or ``(N,)`` with offsets, ``weight (V, d)`` → ``(B, d)``.
    """

    def bags(table: Tensor, factors: Tensor | None) -> Tensor:
        return F.embedding_bag(index, table, mode=mode, per_sample_weights=factors, **options)

    y = bags(weight.value, scale.value)
    if mode == "max":
        return Dual(y, None if weight.tangent is None else _at_the_largest(index, weight, options))
    moved = None if weight.tangent is None else bags(weight.tangent, scale.value)
    return Dual(y, moved if scale.tangent is None else plus(moved, bags(weight.value, scale.tangent)))


def _at_the_largest(index: Tensor, weight: Dual, options: dict[str, Any]) -> Tensor:
    """The tangents of the rows that the maxima were taken from."""
    offsets = options.get("offsets")
    if index.ndim == 2:
        offsets = torch.arange(0, index.numel(), index.shape[1], device=index.device)
    last, padding = options.get("include_last_offset", False), options.get("padding_idx")
    arguments: Any = (weight.value, index.reshape(-1), offsets, False, 2, False, None, last, padding)
    *_, rows = torch.embedding_bag(*arguments)
    empty = rows < 0
    return weight.tangent.gather(0, rows.clamp_min(0)).masked_fill(empty, 0.0)
