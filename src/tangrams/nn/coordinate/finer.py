"""A network of sines with variable period."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import CoordinateNetwork, check_positive, sine_bound


class FINER(CoordinateNetwork):
    r"""Sines whose frequency grows with their argument; the biases of the first layer choose where on it.

    .. math:: \sin(ω (|z| + 1) z), \qquad z = W x + b

    Started as :class:`SIREN`, the first biases in :math:`U[-k, k]`. Gradients are those of this function; the authors'
    code leaves the factor :math:`|z| + 1` out of them. Liu et al. (2024); a network of [016].

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers of sines.
        out_features: c, values per position.
        omega: ω.
        first_bias: k; torch's bound for None.
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
        first_bias: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, hidden_features, hidden_layers, out_features)
        check_positive(type(self).__name__, omega=omega)
        self.omega, self.first_bias = omega, first_bias
        self.reset_parameters(generator)

    def activate(self, z: Tensor) -> Tensor:
        """``sin(ω (|z| + 1) z)``."""
        return torch.sin(self.omega * (z.abs() + 1) * z)

    def weight_bound(self, place: int, fan_in: int) -> float:
        """Of the start, as of :class:`SIREN`."""
        return sine_bound(place, fan_in, self.omega)

    def bias_bound(self, place: int, fan_in: int) -> float:
        """``first_bias`` in the first layer, torch's bound in the others."""
        if place == 0 and self.first_bias is not None:
            return self.first_bias
        return super().bias_bound(place, fan_in)
