"""Gaussian kernel blocks, and the exact product a block of rows at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK_ENTRIES = 1 << 22
"""Kernel entries that are held at once."""


def squared_distances(q: Float[Tensor, "n d"], k: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """``‖qᵢ − kⱼ‖²`` by one matrix product about the mean of the keys, where it loses the fewest digits."""
    centre = k.detach().mean(0) if len(k) else 0
    q, k = q - centre, k - centre
    squared = torch.addmm(q.square().sum(1, keepdim=True) + k.square().sum(1), q, k.mT, alpha=-2)
    return squared.clamp_min(0)


def gaussian_block(q: Float[Tensor, "n d"], k: Float[Tensor, "m d"], sigma: float | Tensor) -> Float[Tensor, "n m"]:
    """``exp(−‖qᵢ − kⱼ‖² / 2σ²)``; differentiable, with a finite gradient where points coincide."""
    return torch.exp(squared_distances(q, k) * (-0.5 / sigma**2))


def gaussian_product(
    q: Float[Tensor, "n d"], k: Float[Tensor, "m d"], x: Float[Tensor, "m c"], sigma: float | Tensor
) -> Float[Tensor, "n c"]:
    """``K x`` exactly, in time n · m · (d + c) and memory for a block of rows.

    Args:
        q: queries.
        k: keys.
        x: columns.
        sigma: the kernel's σ.
    """
    rows = max(1, BLOCK_ENTRIES // max(1, len(k)))
    blocks = [gaussian_block(part, k, sigma) @ x for part in q.split(rows)]
    return torch.cat(blocks) if blocks else x.new_zeros(0, x.shape[1])
