"""A network of Gaussian bells of sines with variable period."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import CoordinateNetwork, check_positive, sine_bound, variable_periodic


class GaussFINER(CoordinateNetwork):
    r"""The bell of :class:`Gauss` over the sine of :class:`FINER`.

    .. math:: \exp(-(s u)^2), \qquad u = \sin(ω (|z| + 1) z)

    A network of [016].

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers are followed by the activation.
        out_features: c, values per position.
        omega: ω.
        scale: s.
        first_bias: biases of the first layer start in U[−k, k].
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
        omega: float = 10.0,
        scale: float = 3.0,
        first_bias: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, hidden_features, hidden_layers, out_features)
        check_positive("GaussFINER", omega=omega, scale=scale)
        self.omega, self.scale, self.first_bias = omega, scale, first_bias
        self.reset_parameters(generator)

    def activate(self, z: Tensor) -> Tensor:
        """The bell of the sine."""
        return torch.exp(-((self.scale * variable_periodic(z, self.omega)) ** 2))

    def weight_bound(self, place: int, fan_in: int) -> float:
        """Of the start, as of :class:`SIREN`."""
        return sine_bound(place, fan_in, self.omega)

    def bias_bound(self, place: int, fan_in: int) -> float:
        """K in the first layer."""
        return self.first_bias if place == 0 else super().bias_bound(place, fan_in)
