"""A network of sines."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import CoordinateNetwork, check_positive, sine_bound


class SIREN(CoordinateNetwork):
    r"""Sines as activations, with the start that keeps their distribution from layer to layer.

    .. math:: \sin(ω_0 (W x + b)), \qquad W \sim U[-1/d, 1/d] \text{ first}, \quad
              U[-\sqrt{6/d}/ω_0, \sqrt{6/d}/ω_0] \text{ then}

    Sitzmann et al. (2020); a network of [016].

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers of sines.
        out_features: c, values per position.
        omega: ω₀; larger ones favour high frequencies.
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
        omega: float = 30.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, hidden_features, hidden_layers, out_features)
        check_positive("SIREN", omega=omega)
        self.omega = omega
        self.reset_parameters(generator)

    def activate(self, z: Tensor) -> Tensor:
        """``sin(ω₀ z)``."""
        return torch.sin(self.omega * z)

    def weight_bound(self, place: int, fan_in: int) -> float:
        """Of the start."""
        return sine_bound(place, fan_in, self.omega)
