"""The discriminator of least squares."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.learners.base import HasGram
from tangrams.models.gan.base import InfiniteDiscriminator, weighted_spectrum
from tangrams.models.gan.losses import LSGANLoss


class LSGANDiscriminator(InfiniteDiscriminator):
    r"""An infinitely wide discriminator of the loss ``E (f(fake) + 1)² + E (f(real) − 1)²``, in closed form [042].

    .. math:: c = W^{1/2} U\, \frac{1 - e^{-2 λ t}}{λ}\, U^⊤ W^{1/2} y, \qquad W^{1/2} K W^{1/2} = U λ U^⊤

    with labels y = ±1; groups of different sizes keep their weights.

    Args:
        kernel: k.
        time: t > 0.
        target: what fakes want f to be; see :class:`~tangrams.models.gan.LSGANLoss`.

    Raises:
        ValueError: if ``time`` is not positive.
    """

    def __init__(self, kernel: HasGram, time: float = 1.0, *, target: float = 0.0) -> None:
        super().__init__(kernel, time)
        self.loss = LSGANLoss(target)

    def coefficients(
        self, gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"], signs: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """By the eigenvectors; along those of zero the limit 2t."""
        values, vectors = weighted_spectrum(gram, weights)
        tiny = torch.finfo(values.dtype).tiny
        gain = torch.where(values > tiny, -torch.expm1(-2 * self.time * values) / values.clamp_min(tiny), 2 * self.time)
        root = weights.sqrt()
        return root * (vectors @ (gain * (vectors.mT @ (root * signs))))
