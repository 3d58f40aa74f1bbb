"""A network that starts at zero, whatever its weights."""

from __future__ import annotations

import copy

from torch import Tensor, nn


class Antisymmetric(nn.Module):
    r"""The difference of a network and its copy, which is zero until they are trained [042].

    .. math:: f(x) = \frac{g(x; θ_1) - g(x; θ_2)}{\sqrt 2}, \qquad θ_1 = θ_2 \text{ at the start}

    Its tangent kernel at the start is that of the network.

    Args:
        network: g; it becomes one of the halves.

    Shape:
        what the network takes and returns.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.positive = network
        self.negative = copy.deepcopy(network)

    def forward(self, x: Tensor) -> Tensor:
        """The difference."""
        return (self.positive(x) - self.negative(x)) * 0.5**0.5
