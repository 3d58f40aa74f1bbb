"""The Gauss–Legendre rule, worked out once for each number of nodes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor


@lru_cache(maxsize=16)
def gauss_legendre(count: int) -> tuple[Float64[Tensor, "n"], Float64[Tensor, "n"]]:
    """Nodes and weights on [−1, 1], exact for polynomials of degree ``2 n − 1``; shared, so not to be written to.

    Args:
        count: n ≥ 1; half a second for two thousand.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(weights)
