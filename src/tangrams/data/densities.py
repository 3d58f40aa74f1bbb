"""Distributions in the plane and on the line for generative models to imitate."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def eight_gaussians(n: int, *, radius: float = 5.0, std: float = 0.5, seed: int = 0) -> Float[Tensor, "n 2"]:
    """Samples of eight Gaussians with their means on a circle.

    Args:
        n: how many, at least one.
        radius: of the circle.
        std: standard deviation of each.
        seed: fixes the draw.
    """
    generator = _generator("eight_gaussians", n, seed)
    angle = torch.randint(0, 8, (n,), generator=generator) * (math.pi / 4)
    centres = radius * torch.stack([angle.cos(), angle.sin()], 1)
    return centres + std * torch.randn(n, 2, generator=generator)


def two_modes(n: int, *, distance: float = 4.0, std: float = 0.5, seed: int = 0) -> Float[Tensor, "n 1"]:
    """Samples of two Gaussians on the line.

    Args:
        n: how many, at least one.
        distance: of their means, which lie on both sides of zero.
        std: standard deviation of each.
        seed: fixes the draw.
    """
    generator = _generator("two_modes", n, seed)
    side = torch.randint(0, 2, (n, 1), generator=generator) - 0.5
    return distance * side + std * torch.randn(n, 1, generator=generator)


def image_density(image: Float[Tensor, "h w"], n: int, *, seed: int = 0) -> Float[Tensor, "n 2"]:
    """Samples of the distribution whose density is a picture, in [−1, 1] × [−1, 1], upright.

    Args:
        image: the density up to a factor, none below zero.
        n: how many.
        seed: fixes the draw.

    Raises:
        ValueError: if ``n < 1``, or the picture is negative somewhere or zero.
    """
    generator = _generator("image_density", n, seed)
    if bool((image < 0).any()) or not float(image.sum()) > 0:
        raise ValueError("image_density needs a picture that is nowhere negative and not all zero")
    height, width = image.shape
    pixel = torch.multinomial(image.flatten().to(torch.float64), n, replacement=True, generator=generator)
    row, column = pixel // width, pixel % width
    jitter = torch.rand(n, 2, generator=generator)
    across = 2 * (column + jitter[:, 0]) / width - 1
    return torch.stack([across, 1 - 2 * (row + jitter[:, 1]) / height], 1)


def _generator(who: str, n: int, seed: int) -> torch.Generator:
    if n < 1:
        raise ValueError(f"{who} needs n ≥ 1, got {n}")
    return torch.Generator().manual_seed(seed)
