"""Random changes of images that keep their class."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


class ImageAugmentation:
    """Flip, colour, crop, rotate, translate and cut out, each image by itself [092].

    Args:
        flip: mirror half of the images.
        brightness: added at most, in units of an image's standard deviation.
        contrast: the factor is between 1 − c and 1 + c.
        crop: zoomed in by at most this share.
        rotate: degrees at most.
        translate: share of the size at most.
        cutout: side of the square that is blanked, as a share of the image's.
    """

    def __init__(
        self,
        *,
        flip: bool = True,
        brightness: float = 0.5,
        contrast: float = 0.3,
        crop: float = 0.15,
        rotate: float = 15.0,
        translate: float = 0.125,
        cutout: float = 0.4,
    ) -> None:
        self.flip, self.brightness, self.contrast = flip, brightness, contrast
        self.crop, self.rotate, self.translate, self.cutout = crop, rotate, translate, cutout

    def __call__(self, images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """The images, changed.

        Args:
            images: a batch.
            generator: on the CPU.
        """
        n, _, h, w = images.shape
        u = 2 * torch.rand(8, n, generator=generator, dtype=torch.float32).to(images) - 1  # between −1 and 1
        zoom = 1 - self.crop * (u[0] + 1) / 2
        mirror = torch.where(u[1] < 0, -1.0, 1.0) if self.flip else torch.ones_like(zoom)
        angle = u[2] * math.radians(self.rotate)
        cos, sin = angle.cos() * zoom, angle.sin() * zoom
        shift = 2 * self.translate * u[3:5]
        grid = torch.stack(
            [torch.stack([cos * mirror, -sin, shift[0]], 1), torch.stack([sin * mirror, cos, shift[1]], 1)], 1
        )
        out = grid_sample(images, affine_grid(grid, list(images.shape), align_corners=False), align_corners=False)
        mean, deviation = out.mean((1, 2, 3), keepdim=True), out.flatten(1).std(1)[:, None, None, None]
        factor, offset = (1 + self.contrast * u[5]), self.brightness * u[6]
        out = mean + (out - mean) * factor[:, None, None, None] + offset[:, None, None, None] * deviation
        return out * ~self._square(n, h, w, generator).to(images.device)

    def _square(self, n: int, h: int, w: int, generator: torch.Generator) -> Tensor:
        """Where a square around a random pixel is: ``(n, 1, h, w)``."""
        half = self.cutout * torch.tensor([h, w]) / 2
        centre = torch.rand(n, 2, generator=generator, dtype=torch.float32) * torch.tensor([h, w])
        rows = (torch.arange(h) + 0.5 - centre[:, :1]).abs() < half[0]
        columns = (torch.arange(w) + 0.5 - centre[:, 1:]).abs() < half[1]
        return (rows[:, :, None] & columns[:, None, :])[:, None]
