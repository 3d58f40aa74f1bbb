"""Gaussian kernel blocks, and the exact product a block of rows at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK_ENTRIES = 1 << 22
"""Kernel entries that are held at once."""


_ROUNDING = 1e-4
"""Of a squared distance, in units of the square of the length at which it matters."""


def squared_distances(q: Float[Tensor, "n d"], k: Float[Tensor, "m d"], unit: float | Tensor) -> Float[Tensor, "n m"]:
    """``‖qᵢ − kⱼ‖²`` by one matrix product about the mean of the keys, where it loses the fewest digits.

    What is lost is a share of the squared norms: clusters that are far apart, as those of a sparse kernel are, would
    lose the distances within them. Where that shows at the given length, the product is formed in float64.

    Args:
        q: queries.
        k: keys.
        unit: the length at which digits matter, such as σ.
    """
    centre = k.detach().mean(0) if len(k) else 0
    left, right = q - centre, k - centre
    norms = left.square().sum(1, keepdim=True), right.square().sum(1)
    farthest = max((float(part.detach().amax()) for part in norms if len(part)), default=0.0)
    length = float(torch.as_tensor(unit).detach())
    if q.dtype != torch.float64 and farthest * torch.finfo(q.dtype).eps > _ROUNDING * length**2:
        return squared_distances(q.double(), k.double(), unit).to(q.dtype)
    return torch.addmm(norms[0] + norms[1], left, right.mT, alpha=-2).clamp_min(0)


def gaussian_block(q: Float[Tensor, "n d"], k: Float[Tensor, "m d"], sigma: float | Tensor) -> Float[Tensor, "n m"]:
    """``exp(−‖qᵢ − kⱼ‖² / 2σ²)``; differentiable, with a finite gradient where points coincide."""
    return torch.exp(squared_distances(q, k, sigma) * (-0.5 / sigma**2))


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
