"""A network of Gaussian bells of sines with variable period."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import check_positive
from tangrams.nn.coordinate.finer import FINER


class GaussFINER(FINER):
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
        sizes = in_features, hidden_features, hidden_layers, out_features
        super().__init__(*sizes, omega=omega, first_bias=first_bias, generator=generator)
        check_positive("GaussFINER", scale=scale)
        self.scale = scale

    def activate(self, z: Tensor) -> Tensor:
        """The bell of the sine."""
        return torch.exp(-((self.scale * super().activate(z)) ** 2))
