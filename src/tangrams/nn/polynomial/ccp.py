"""The coupled polynomial network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tangrams.nn.ntk_linear import NTKLinear


class CCP(nn.Module):
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
        super().__init__()
        check_degree("CCP", degree)
        self.activation = activation
        self.factors = nn.ModuleList(
            NTKLinear(in_features, width, W_std, 0.0, generator=generator) for _ in range(degree)
        )
        self.head = NTKLinear(width, out_features, 1.0, b_std, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The network."""
        z = activate(self.activation, self.factors[0](x))
        for factor in self.factors[1:]:
            z = activate(self.activation, factor(x)) * z + z
        return self.head(z)


def check_degree(who: str, degree: int) -> None:
    """Refuse a polynomial without a factor.

    Raises:
        ValueError: if ``degree < 1``.
    """
    if degree < 1:
        raise ValueError(f"{who} needs degree ≥ 1, got {degree}")


def activate(activation: Callable[[Tensor], Tensor] | None, h: Tensor) -> Tensor:
    """``σ(h)``."""
    return h if activation is None else activation(h)
