"""The role of a coordinate network: positions in, values of a signal out."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class CoordinateNetwork(nn.Module, ABC):
    """Linear layers with one activation between each two, on positions that may be encoded first.

    A member writes :meth:`activate` and, where it differs from torch's, the start: :meth:`weight_bound` and
    :meth:`bias_bound`; it calls :meth:`reset_parameters` when its settings are there. Hidden layers may be replaced in
    ``layers``, by :class:`~tangrams.nn.FourierReparamLinear` or by a layer with BatchNorm, say.

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers are followed by the activation.
        out_features: c, values per position.
        encoded_features: what the first layer takes, d where positions are not encoded.

    Shape:
        ``(…, d)`` → ``(…, c)``.

    Raises:
        ValueError: if a size is below one.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        hidden_layers: int,
        out_features: int,
        *,
        encoded_features: int | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, hidden_features, hidden_layers, out_features) < 1:
            sizes = (in_features, hidden_features, hidden_layers, out_features)
            raise ValueError(f"{type(self).__name__} needs sizes ≥ 1, got {sizes}")
        self.in_features, self.out_features = in_features, out_features
        sizes = [encoded_features or in_features, *[hidden_features] * hidden_layers, out_features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))

    @abstractmethod
    def activate(self, z: Tensor) -> Tensor:
        """The activation."""

    def weight_bound(self, place: int, fan_in: int) -> float:
        """Weights of layer ``place`` start in U[−bound, bound]; torch's own bound here.

        Args:
            place: of the layer, from 0.
            fan_in: its inputs.
        """
        return 1 / math.sqrt(fan_in)

    def bias_bound(self, place: int, fan_in: int) -> float:
        """Biases of layer ``place`` start in U[−bound, bound]; torch's own bound here.

        Args:
            place: of the layer, from 0.
            fan_in: its inputs.
        """
        return 1 / math.sqrt(fan_in)

    def encode(self, x: Tensor) -> Tensor:
        """What the first layer sees of positions; they themselves here."""
        return x

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the parameters of all linear layers.

        Args:
            generator: of the draws; the global stream by default.
        """
        for place, layer in enumerate(self.layers):
            if isinstance(layer, nn.Linear):
                weight, bias = (bound(place, layer.in_features) for bound in (self.weight_bound, self.bias_bound))
                nn.init.uniform_(layer.weight, -weight, weight, generator=generator)
                nn.init.uniform_(layer.bias, -bias, bias, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The signal at these positions."""
        *hidden, last = self.layers
        y = self.encode(x)
        for layer in hidden:
            y = self.activate(layer(y))
        return last(y)


def sine_bound(place: int, fan_in: int, omega: float) -> float:
    """The start of networks of sines: arguments of unit order in the first layer, of unit variance in the others."""
    return 1 / fan_in if place == 0 else math.sqrt(6 / fan_in) / omega


def check_positive(who: str, **values: float) -> None:
    """Refuse settings that are not positive.

    Raises:
        ValueError: if one is not.
    """
    for name, value in values.items():
        if not value > 0:
            raise ValueError(f"{who} needs {name} > 0, got {value}")
