"""What the transforms that mix all columns share: rows drawn from many, and H cut where the stream is cut.

``H_rc = (−1)^popcount(r & c)`` is a product over the bits, so that a stretch of columns that is aligned to a power of
two meets only its own small transform, and the bits above it give each row one sign.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.operators.sketches.base import BLOCK


def power_of_two(n: int) -> int:
    """The least power of two that is not below n, 1 for n = 0."""
    return 1 << max(n - 1, 0).bit_length()


def stream_width(size: int) -> tuple[int, int]:
    """``size`` as a number of blocks, a power of two, and the columns of each: one block as wide as it is, if it fits.

    Args:
        size: what has to fit.
    """
    return (1, size) if size <= BLOCK else (power_of_two(-(-size // BLOCK)), BLOCK)


def draw_rows(count: int, total: int, generator: torch.Generator) -> Int64[Tensor, "count"]:
    """Distinct numbers below ``total``, uniform, without listing them all where few are wanted.

    Args:
        count: how many.
        total: from how many.
        generator: draws them.
    """
    if 4 * count >= total:
        return torch.randperm(total, generator=generator)[:count]
    rows = torch.empty(0, dtype=torch.int64)
    while len(rows) < count:
        rows = torch.cat([rows, torch.randint(0, total, (2 * count,), generator=generator)])
        first = torch.full((len(rows),), len(rows))  # keep the first of equals, in the order of the draws
        values, where = rows.unique(return_inverse=True)
        first = first[: len(values)].scatter_reduce(0, where, torch.arange(len(rows)), "amin")
        rows = values[first.argsort()]
    return rows[:count]


def aligned_stretch(low: int, high: int) -> tuple[int, int]:
    """``(base, size)`` of the smallest aligned power-of-two stretch around ``low … high``."""
    size = 1
    while low // size != (high - 1) // size:
        size *= 2
    return low - low % size, size


def parity_signs(x: Int64[Tensor, "k"], like: Tensor) -> Float[Tensor, "k"]:
    """``(−1)^popcount(x)``, in the dtype and on the device of ``like``."""
    for shift in (32, 16, 8, 4, 2, 1):
        x = x ^ (x >> shift)
    return (1 - 2 * (x & 1)).to(dtype=like.dtype, device=like.device)
