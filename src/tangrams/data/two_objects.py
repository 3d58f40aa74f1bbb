"""Images of a circle and a square whose brightness carries a shortcut and a core."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.shortcut import ShortcutSamples, ShortcutTask

_FOOTPRINT = 400
_TRIES = 1000


@dataclass(frozen=True)
class TwoObjectImages:
    r"""A circle carries the shortcut, a square the core; availability is the circle's footprint [008].

    The latents are those of a :class:`ShortcutTask`; its amplification ``alpha_s`` scales the circle's area, its base
    and the square's being 400 pixels. A latent is the object's brightness, :math:`(z + r)/(2r)` clipped to [0, 1] with
    r = μ + 3, on black. Positions are random; the objects do not overlap.

    Args:
        task: predictivities, covariance and ``alpha_s``; its ``alpha_c`` scales the square. It is not nested.
        side: height and width of the canvas in pixels.

    Raises:
        ValueError: if both objects do not fit beside each other, or the task is nested.

    Example:
        >>> TwoObjectImages(ShortcutTask(0.8, alpha_s=4)).sample(2, seed=0).inputs.shape
        torch.Size([2, 1, 224, 224])
    """

    task: ShortcutTask
    side: int = 224

    def __post_init__(self) -> None:
        if self.task.eta_s or self.task.eta_c:
            raise ValueError("TwoObjectImages draws latents as brightness: pass a task without nesting")
        if 2 * (self.radius + self.half) >= self.side / 2:
            raise ValueError(
                f"a circle of radius {self.radius:.0f} and a square of half side {self.half:.0f} do not fit beside "
                f"each other on {self.side} pixels: lower alpha_s or widen the canvas"
            )

    @property
    def radius(self) -> float:
        """Of the circle, in pixels."""
        return math.sqrt(_FOOTPRINT * self.task.alpha_s / math.pi)

    @property
    def half(self) -> float:
        """Half the side of the square."""
        return math.sqrt(_FOOTPRINT * self.task.alpha_c) / 2

    def sample(self, n: int, *, seed: int) -> ShortcutSamples:
        """Draw images, float32, classes balanced.

        Args:
            n: how many.
            seed: fixes latents and positions.
        """
        drawn = self.task.sample(n, seed=seed)
        return ShortcutSamples(self.render(drawn.latents, seed=seed), drawn.targets, drawn.latents)

    def render(self, latents: Float[Tensor, "m 2"], *, seed: int, base: bool = False) -> Float[Tensor, "m 1 h w"]:
        """The images of latents.

        Args:
            latents: brightness of circle and square.
            seed: fixes the positions.
            base: with the footprints of amplification one, as the probes are drawn. Where two objects that
                do not overlap hardly find room, a ``ValueError``.
        """
        radius, half = self.radius, self.half
        if base:
            radius, half = math.sqrt(_FOOTPRINT / math.pi), math.sqrt(_FOOTPRINT) / 2
        circle, square = self._positions(len(latents), radius, half, torch.Generator().manual_seed(seed))
        reach = self.task.means + 3
        brightness = ((latents + reach) / (2 * reach)).clamp(0, 1).to(torch.float32)
        axis = torch.arange(self.side, dtype=torch.float32) + 0.5

        def offsets(centre: Tensor) -> tuple[Tensor, Tensor]:
            return axis[None, :, None] - centre[:, 0, None, None], axis[None, None, :] - centre[:, 1, None, None]

        down, right = offsets(circle)
        image = (down.square() + right.square() <= radius**2) * brightness[:, 0, None, None]
        down, right = offsets(square)
        inside = (down.abs() <= half) & (right.abs() <= half)
        return torch.where(inside, brightness[:, 1, None, None], image)[:, None]

    def _positions(self, n: int, radius: float, half: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Centres of both objects, drawn again until they lie apart."""
        found = torch.zeros(2, n, 2)
        missing = torch.arange(n)
        for _ in range(_TRIES):
            if not len(missing):
                break
            for which, margin in enumerate((radius, half)):
                uniform = torch.rand(len(missing), 2, generator=generator)
                found[which, missing] = margin + uniform * (self.side - 2 * margin)
            gap = ((found[0, missing] - found[1, missing]).abs() - half).clamp_min(0).norm(dim=1)
            missing = missing[gap <= radius]
        if len(missing):
            raise ValueError(f"TwoObjectImages: both objects hardly fit on {self.side} pixels: widen the canvas")
        return found[0], found[1]
