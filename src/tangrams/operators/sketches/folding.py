"""Signed, shifted folding: the one operation of the count sketches, as pure functions.

Columns are cut into runs of ``size``; each run is multiplied by signs, rotated by its own shift and added up. Entry
``c`` of a block goes to ``(c + shift[c // size]) mod size``: two columns of one run never meet, two of different runs
meet with probability 1/size.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.sketches.base import BLOCK

_WIDE = 256
"""From this size on, moving runs whole beats scattering their entries."""


def draw_signs(count: int, generator: torch.Generator) -> Tensor:
    """Independent ±1 as int8."""
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.int8).mul_(2).sub_(1)


def draw_shifts(size: int, generator: torch.Generator) -> Int64[Tensor, "runs"]:
    """One shift for each run of ``size`` in a block of the stream."""
    return torch.randint(0, size, (-(-BLOCK // size),), generator=generator)


def fold_add(
    part: Float[Tensor, "n width"],
    signs: Float[Tensor, "width"],
    shifts: Int64[Tensor, "runs"],
    low: int,
    out: Float[Tensor, "n size"],
) -> None:
    """Add the folded columns ``low … low + width`` of a block to ``out``.

    Args:
        part: the columns, in the dtype of ``out``.
        signs: one for each of them.
        shifts: one for each run of the block.
        low: the first column, counted within the block.
        out: ``size`` of the fold, added to in place.
    """
    size = out.shape[1]
    if size < _WIDE:
        out.index_add_(1, _targets(low, part.shape[1], shifts, size).to(out.device), part * signs)
        return
    for source, target, length in _pieces(low, low + part.shape[1], shifts.tolist(), size):
        piece = slice(source - low, source - low + length)
        out[:, target : target + length].addcmul_(part[:, piece], signs[piece])


def unfold_take(
    u: Float[Tensor, "n size"], signs: Float[Tensor, "width"], shifts: Int64[Tensor, "runs"], low: int
) -> Float[Tensor, "n width"]:
    """The adjoint of :func:`fold_add`."""
    return u[:, _targets(low, len(signs), shifts, u.shape[1]).to(u.device)] * signs


def _targets(low: int, width: int, shifts: Int64[Tensor, "runs"], size: int) -> Int64[Tensor, "width"]:
    """Where each column goes."""
    column = torch.arange(low, low + width)
    return (column + shifts[column // size]) % size


def _pieces(low: int, high: int, shifts: list[int], size: int) -> Iterator[tuple[int, int, int]]:
    """Cut columns into stretches that move as a whole.

    Yields:
        ``(column, where it goes, length)``
    """
    column = low
    while column < high:
        run, within = divmod(column, size)
        target = (within + shifts[run]) % size
        length = min(high - column, size - within, size - target)
        yield column, target, length
        column += length
