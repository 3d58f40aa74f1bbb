"""Random graphs with heavy-tailed degrees: R-MAT (Chakrabarti, Zhan and Faloutsos, 2004)."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor


def rmat(
    scale: int,
    edge_factor: int = 8,
    *,
    a: float = 0.57,
    b: float = 0.19,
    c: float = 0.19,
    seed: int = 0,
) -> Int64[Tensor, "2 e"]:
    """Distinct directed edges of an R-MAT graph on 2^scale nodes, in the order of source, then target.

    For every bit of the two names one of four quadrants is drawn: both bits zero with probability a, the second one
    with b, the first one with c, both with the rest.

    Args:
        scale: the binary logarithm of the number of nodes.
        edge_factor: edges drawn per node; repeats are dropped.
        a: probability of the first quadrant; the defaults are those of Graph500.
        b: of the second.
        c: of the third.
        seed: fixes every draw.

    Raises:
        ValueError: if a size is below one, or the probabilities are none.

    Example:
        >>> rmat(4, 2).shape[0]
        2
    """
    if scale < 1 or edge_factor < 1:
        raise ValueError(f"rmat needs scale and edge_factor ≥ 1, got {scale} and {edge_factor}")
    if min(a, b, c) < 0 or a + b + c > 1:
        raise ValueError(f"rmat needs probabilities a, b, c ≥ 0 that sum to one at most, got {a}, {b}, {c}")
    generator = torch.Generator().manual_seed(seed)
    edges = torch.zeros(2, edge_factor << scale, dtype=torch.int64)
    for _ in range(scale):
        drawn = torch.rand(edges.shape[1], generator=generator, dtype=torch.float64)
        source = drawn >= a + b
        target = ((drawn >= a) & (drawn < a + b)) | (drawn >= a + b + c)
        edges = 2 * edges + torch.stack([source, target])
    codes = torch.unique((edges[0] << scale) + edges[1])
    return torch.stack([codes >> scale, codes & ((1 << scale) - 1)])
