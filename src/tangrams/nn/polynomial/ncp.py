"""The nested polynomial network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tangrams.nn.ntk_linear import NTKLinear
from tangrams.nn.polynomial.base import PolynomialNetwork


class NCP(PolynomialNetwork):
    r"""A polynomial network with nested factors, in NTK parametrisation [012].

    .. math:: z_1 = σ(A_1 x), \qquad z_n = σ(A_n x) ⊙ (S_n z_{n-1} + σ_b b_n), \qquad f(x) = C z_N + β

    The vector that the first factor meets elsewhere is absorbed into it. At infinite width its tangent kernel is
    :class:`~tangrams.kernels.ntk.NCPNTK`.

    Args:
        in_features: d.
        width: m, units per factor.
        out_features: outputs.
        degree: N, the number of factors.
        activation: σ; None for the identity.
        W_std: σ_w of the factors of the input; √2 keeps the size of units behind a ReLU.
        b_std: σ_b, of the vectors b_n and of β; zero leaves them out.
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
        b_std: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, width, degree, activation, W_std, generator)
        self.mixing = nn.ModuleList(NTKLinear(width, width, 1.0, b_std, generator=generator) for _ in range(degree - 1))
        self.head = NTKLinear(width, out_features, 1.0, b_std, generator=generator)

    def units(self, x: Tensor) -> Tensor:
        """Each factor multiplies a mixture of what there is."""
        z = self.factor(0, x)
        for number, mix in enumerate(self.mixing, 1):
            z = self.factor(number, x) * mix(z)
        return z
