"""A network of wavelets of sines with variable period."""

from __future__ import annotations

import torch
from torch import Tensor

from tangrams.nn.coordinate.base import check_positive, sine_bound
from tangrams.nn.coordinate.finer import FINER


class WIREFINER(FINER):
    r"""The wavelet of :class:`WIRE` over the sine of :class:`FINER`.

    .. math:: \cos(ω_w u) \exp(-(s u)^2), \qquad u = \sin(ω (|z| + 1) z)

    A network of [016].

    Args:
        in_features: d, of a position.
        hidden_features: the width.
        hidden_layers: how many layers are followed by the activation.
        out_features: c, values per position.
        omega: ω, of the sine.
        wave: ω_w, of the wavelet.
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
        omega: float = 5.0,
        wave: float = 4.0,
        scale: float = 2.0,
        first_bias: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        check_positive("WIREFINER", wave=wave, scale=scale)
        self.wave, self.scale = wave, scale  # the start, which is drawn below, needs the wave
        sizes = in_features, hidden_features, hidden_layers, out_features
        super().__init__(*sizes, omega=omega, first_bias=first_bias, generator=generator)

    def activate(self, z: Tensor) -> Tensor:
        """The wavelet of the sine."""
        u = super().activate(z)
        return torch.cos(self.wave * u) * torch.exp(-((self.scale * u) ** 2))

    def weight_bound(self, place: int, fan_in: int) -> float:
        """Of the start, as of :class:`SIREN` with both frequencies."""
        return sine_bound(place, fan_in, self.omega * self.wave)
