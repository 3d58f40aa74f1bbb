"""A network of wavelets."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import CoordinateNetwork, check_positive


class WIRE(CoordinateNetwork):
    r"""Gabor wavelets as activations, :math:`\cos(ω z) \exp(-(s z)^2)`.

    The real part of Saragadam et al.'s (2023), with real weights; a network of [016].

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers of wavelets.
        out_features: c, values per position.
        omega: ω, of the wave.
        scale: s, of the bell.
        generator: draws the start; the global stream by default.

    Shape:
        ``(…, d)`` → ``(…, c)``.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        out_features: int = 1,
        *,
        omega: float = 20.0,
        scale: float = 10.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, hidden_features, hidden_layers, out_features)
        check_positive("WIRE", omega=omega, scale=scale)
        self.omega, self.scale = omega, scale
        self.reset_parameters(generator)

    def activate(self, z: Tensor) -> Tensor:
        """``cos(ω z) exp(−(s z)²)``."""
        return torch.cos(self.omega * z) * torch.exp(-((self.scale * z) ** 2))
