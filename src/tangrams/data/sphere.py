"""Points on the sphere that integrate polynomials exactly."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.quadrature import gauss_legendre


def sphere_quadrature(degree: int) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Points and weights on S² that integrate all polynomials of total degree up to ``degree`` exactly.

    Gauss–Legendre heights, equally spaced longitudes: about degree²/2 points.

    Args:
        degree: of the polynomials.

    Shape:
        ``(n, 3)`` unit vectors and ``(n,)`` weights of sum one, float64.

    Raises:
        ValueError: if ``degree < 0``.

    Example:
        >>> points, weights = sphere_quadrature(4)
        >>> float(weights @ points[:, 2] ** 4)  # 1/5
        0.2...
    """
    if degree < 0:
        raise ValueError(f"sphere_quadrature needs degree ≥ 0, got {degree}")
    heights, share = (part.numpy() for part in gauss_legendre(degree // 2 + 1))
    longitudes = np.arange(degree + 1) * 2 * math.pi / (degree + 1)
    z, a = (grid.reshape(-1) for grid in np.meshgrid(heights, longitudes, indexing="ij"))
    radius = np.sqrt(1 - z**2)
    points = torch.from_numpy(np.stack([radius * np.cos(a), radius * np.sin(a), z], 1))
    weights = torch.from_numpy(np.repeat(share / 2 / len(longitudes), len(longitudes)))
    return points, weights
