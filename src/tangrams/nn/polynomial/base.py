"""The role of a polynomial network: factors of the input, multiplied unit by unit, and one readout."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from tangrams.nn.ntk_linear import NTKLinear


class PolynomialNetwork(nn.Module, ABC):
    """Factors σ(U_n x) of equal width in NTK parametrisation; a member writes :meth:`units` and makes the ``head``.

    Args:
        in_features: d.
        width: m, units per factor.
        degree: N, the number of factors.
        activation: σ; None for the identity.
        W_std: σ_w of each factor.
        generator: draws the parameters; the global stream by default.

    Shape:
        ``(…, d)`` → ``(…, out_features)``.

    Raises:
        ValueError: if a size or the degree is below one, or a standard deviation negative.
    """

    head: NTKLinear

    def __init__(
        self,
        in_features: int,
        width: int,
        degree: int,
        activation: Callable[[Tensor], Tensor] | None,
        W_std: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        if degree < 1:
            raise ValueError(f"{type(self).__name__} needs degree ≥ 1, got {degree}")
        self.activation = activation
        self.factors = nn.ModuleList(
            NTKLinear(in_features, width, W_std, 0.0, generator=generator) for _ in range(degree)
        )

    def factor(self, number: int, x: Tensor) -> Tensor:
        """``σ(U_n x)``, counted from zero."""
        h = self.factors[number](x)
        return h if self.activation is None else self.activation(h)

    @abstractmethod
    def units(self, x: Tensor) -> Tensor:
        """``z_N``, the product: ``(…, m)``."""

    def forward(self, x: Tensor) -> Tensor:
        """The network."""
        return self.head(self.units(x))
