"""A ReLU network on sines and cosines of positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import CoordinateNetwork


class PositionalEncodingMLP(CoordinateNetwork):
    r"""ReLUs on positions and their sines and cosines at octaves.

    .. math:: γ(x) = (x, \sin 2^i π x, \cos 2^i π x)_{i < L}

    With ``num_frequencies=0`` it is the plain ReLU network. Mildenhall et al. (2020); a network of [016].

    Args:
        in_features: d, of a position, in [−1, 1]^d.
        hidden_features: the width.
        hidden_layers: how many layers of ReLUs.
        out_features: c, values per position.
        num_frequencies: L; :func:`octaves_of` is what a grid can tell apart.
        generator: draws the start; the global stream by default.

    Shape:
        ``(…, d)`` → ``(…, c)``.

    Raises:
        ValueError: if ``num_frequencies < 0``.
    """

    octaves: Tensor

    def __init__(
        self,
        in_features: int,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        out_features: int = 1,
        *,
        num_frequencies: int = 6,
        generator: torch.Generator | None = None,
    ) -> None:
        if num_frequencies < 0:
            raise ValueError(f"PositionalEncodingMLP needs num_frequencies ≥ 0, got {num_frequencies}")
        encoded = in_features * (1 + 2 * num_frequencies)
        super().__init__(in_features, hidden_features, hidden_layers, out_features, encoded_features=encoded)
        self.register_buffer("octaves", 2.0 ** torch.arange(num_frequencies), persistent=False)
        self.reset_parameters(generator)

    def encode(self, x: Tensor) -> Tensor:
        """γ(x)."""
        angles = (x[..., None] * self.octaves.to(x.dtype) * math.pi).flatten(-2)
        return torch.cat([x, angles.sin(), angles.cos()], -1)

    def activate(self, z: Tensor) -> Tensor:
        """The ReLU."""
        return torch.relu(z)

    def weight_bound(self, place: int, fan_in: int) -> float:
        """Torch's own, and √(6/d) in the last layer."""
        return math.sqrt(6 / fan_in) if place == len(self.layers) - 1 else super().weight_bound(place, fan_in)


def octaves_of(samples: int) -> int:
    """How many octaves ``samples`` points in [−1, 1] can tell apart: ``⌊log₂(samples / 4)⌋``.

    Args:
        samples: along the shortest side.

    Raises:
        ValueError: if there are fewer than four.
    """
    if samples < 4:
        raise ValueError(f"octaves_of needs at least 4 samples, got {samples}")
    return int(math.log2(samples / 4))
