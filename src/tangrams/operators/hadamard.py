"""The fast Walsh–Hadamard transform, by matrix products."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_BITS = 6
"""Small transforms have at most 2⁶ points: as large as their matrix product is still as fast as memory."""


def hadamard_transform(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    r"""``H x`` over the last dimension, H the ±1 matrix of Sylvester's order, ``H_rc = (−1)^popcount(r & c)``.

    As ``H_{abc} = H_a ⊗ H_b ⊗ H_c``, each small factor is one matrix product, so that it runs at the speed of the
    matrix multiply on any device; no butterfly, no compiler. Not normalised: ``H H = n I``.

    Args:
        x: n a power of two.

    Raises:
        ValueError: if n is not a power of two.

    Example:
        >>> hadamard_transform(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([10., -2., -4.,  0.])
    """
    n = x.shape[-1]
    if n < 1 or n & (n - 1):
        raise ValueError(f"hadamard_transform needs a power of two, got {n}: pad with zeros")
    out = x.reshape(-1, n)
    bits = n.bit_length() - 1
    stages = -(-bits // _BITS)
    for stage in range(stages):
        factor = 1 << ((bits + stage) // stages)  # as equal as they get
        # The axis in hand is the last; it goes to the front, so that the next one is last in its turn.
        mixed = out.reshape(-1, n // factor, factor) @ _sylvester(factor, out)
        out = mixed.mT.reshape(-1, n)
    return out.reshape(x.shape)


def _sylvester(n: int, like: Tensor) -> Tensor:
    h = like.new_ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return h
