"""A network of Gaussian bells."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import CoordinateNetwork, check_positive


class Gauss(CoordinateNetwork):
    r"""Bells as activations, :math:`\exp(-(s z)^2)`.

    Ramasinghe and Lucey (2022); a network of [016].

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers of bells.
        out_features: c, values per position.
        scale: s.
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
        scale: float = 30.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, hidden_features, hidden_layers, out_features)
        check_positive("Gauss", scale=scale)
        self.scale = scale
        self.reset_parameters(generator)

    def activate(self, z: Tensor) -> Tensor:
        """``exp(−(s z)²)``."""
        return torch.exp(-((self.scale * z) ** 2))
