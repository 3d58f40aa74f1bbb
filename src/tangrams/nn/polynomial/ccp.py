"""The coupled polynomial network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tangrams.nn.ntk_linear import NTKLinear
from tangrams.nn.polynomial.base import PolynomialNetwork


class CCP(PolynomialNetwork):
    r"""A polynomial network with coupled factors, in NTK parametrisation [012].

    .. math:: z_1 = σ(U_1 x), \qquad z_n = σ(U_n x) ⊙ z_{n-1} + z_{n-1}, \qquad f(x) = C z_N + β

    Without an activation f is a polynomial of total degree N in the input, and of degree N in none of the products'
    coefficients. At infinite width its tangent kernel is :class:`~tangrams.kernels.ntk.CCPNTK`.

    Args:
        in_features: d.
        width: m, units per factor.
        out_features: outputs.
        degree: N, the number of factors.
        activation: σ; None for the identity.
        W_std: σ_w of each factor; √2 keeps the size of units behind a ReLU.
        b_std: of β; zero leaves it out.
        generator: draws the parameters; the global stream by default.

    Shape:
        ``(…, d)`` → ``(…, out_features)``.

    Raises:
        ValueError: if a size or the degree is below one, or a standard deviation negative.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        out_features: int,
        degree: int,
        activation: Callable[[Tensor], Tensor] | None = None,
        *,
        W_std: float = 1.0,
        b_std: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, width, degree, activation, W_std, generator)
        self.head = NTKLinear(width, out_features, 1.0, b_std, generator=generator)

    def units(self, x: Tensor) -> Tensor:
        """Each factor multiplies what there is and is added to it."""
        z = self.factor(0, x)
        for number in range(1, len(self.factors)):
            z = self.factor(number, x) * z + z
        return z
