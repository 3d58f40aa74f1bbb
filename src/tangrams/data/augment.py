"""Random flips and crops of image batches."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def flip_and_crop(
    images: Float[Tensor, "n c h w"], padding: int = 4, *, generator: torch.Generator | None = None
) -> Float[Tensor, "n c h w"]:
    """Each image mirrored with a probability of one half, padded by zeros and cropped to its size at a random place.

    Args:
        images: the batch.
        padding: pixels on each side.
        generator: draws on the CPU; the global stream by default.

    Raises:
        ValueError: if the padding is negative.
    """
    if padding < 0:
        raise ValueError(f"flip_and_crop expects padding ≥ 0, got {padding}")
    n, _, h, w = images.shape
    mirrored = torch.rand(n, generator=generator, dtype=torch.float32) < 0.5
    top, left = torch.randint(2 * padding + 1, (2, n), generator=generator)
    columns = torch.where(mirrored[:, None], torch.arange(w).flip(0), torch.arange(w))
    rows = (top[:, None] + torch.arange(h)).to(images.device)
    columns = (left[:, None] + columns).to(images.device)
    padded = F.pad(images, (padding,) * 4)
    sample = torch.arange(n, device=images.device)
    return padded.movedim(1, -1)[sample[:, None, None], rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
