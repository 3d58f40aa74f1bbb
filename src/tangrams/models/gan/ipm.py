"""The discriminator of an integral probability metric: the fakes follow an MMD flow."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from tangrams.models.gan.base import InfiniteDiscriminator
from tangrams.models.gan.losses import IPMLoss


class IPMDiscriminator(InfiniteDiscriminator):
    r"""An infinitely wide discriminator of the loss ``E f(fake) − E f(real)``, in closed form [042].

    .. math:: f_t(x) = t \Big(\frac1m \sum_j k(x, \text{real}_j) - \frac1n \sum_i k(x, \text{fake}_i)\Big)

    −t times the witness of the maximum mean discrepancy: with the fakes in k held fixed, the gradient of their mean
    loss is t/2 times that of MMD² of the kernel.

    Args:
        kernel: k.
        time: t > 0.
    """

    loss = IPMLoss()

    def coefficients(
        self, gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"], signs: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """``t w y``: the gradient of the loss does not change."""
        return self.time * weights * signs


class AttractionDiscriminator(IPMDiscriminator):
    """The part of :class:`IPMDiscriminator` that attracts fakes to real samples, without their repulsion [042].

    Args:
        kernel: k.
        time: t > 0.
    """

    def coefficients(
        self, gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"], signs: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """Those of the real samples."""
        return super().coefficients(gram, weights, signs).clamp_min(0)
