"""Making images less available without making them less predictive: blur, fade and grain [008]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Change = Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]]


def blur(sigma: float) -> Change:
    """Take the fine structure away: a Gaussian of standard deviation ``sigma`` pixels, the border repeated.

    Args:
        sigma: in pixels, positive.

    Raises:
        ValueError: if it is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"blur needs sigma > 0, got {sigma}")
    reach = max(1, round(3 * sigma))

    def change(images: Tensor) -> Tensor:
        offsets = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
        weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
        weights = weights / weights.sum()
        channels = images.shape[1]
        down = weights[None, None, :, None].expand(channels, 1, -1, 1)
        padded = F.pad(images, (reach,) * 4, mode="replicate")
        return F.conv2d(F.conv2d(padded, down, groups=channels), down.mT, groups=channels)

    return change


def fade(amount: float) -> Change:
    """Bring every image nearer to its own mean, channel by channel.

    Args:
        amount: 0 leaves it, 1 leaves the mean alone.

    Raises:
        ValueError: if it is outside [0, 1].
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"fade needs an amount in [0, 1], got {amount}")
    return lambda images: torch.lerp(images, images.mean((-2, -1), keepdim=True).expand_as(images), amount)


def grain(sigma: float, *, seed: int = 0) -> Change:
    """Add white noise.

    Args:
        sigma: its standard deviation.
        seed: fixes it.

    Raises:
        ValueError: if it is negative.
    """
    if not sigma >= 0:
        raise ValueError(f"grain needs sigma ≥ 0, got {sigma}")

    def change(images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return images + sigma * torch.randn(images.shape, generator=generator, dtype=torch.float32).to(images)

    return change
