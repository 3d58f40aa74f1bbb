"""Discriminators of the cross-entropy: the exact flow, and the closed form per eigenvector."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.integrate import solve_ivp
from scipy.special import expit, wrightomega
from torch import Tensor

from tangrams.models.gan.base import InfiniteDiscriminator, weighted_spectrum
from tangrams.models.gan.losses import VanillaLoss
from tangrams.operators import ConvergenceError

_RTOL, _ATOL = 1e-6, 1e-9


class VanillaDiscriminator(InfiniteDiscriminator):
    r"""An infinitely wide discriminator of the cross-entropy, its flow integrated numerically [042].

    .. math:: \dot c_i = w_i\, y_i\, σ(-y_i (K c)_i)

    Args:
        kernel: k.
        time: t > 0.
    """

    loss = VanillaLoss()

    def coefficients(
        self, gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"], signs: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """By a stiff solver with the exact Jacobian.

        Raises:
            ConvergenceError: if it does not reach the time.
        """
        K, w, y = gram.cpu().numpy(), weights.cpu().numpy(), signs.cpu().numpy()

        def slope(_: float, c: np.ndarray) -> np.ndarray:
            return w * y * expit(-y * (K @ c))

        def jacobian(_: float, c: np.ndarray) -> np.ndarray:
            p = expit(-y * (K @ c))
            return -(w * p * (1 - p))[:, None] * K

        found: Any = solve_ivp(
            slope, (0.0, self.time), np.zeros(len(K)), method="LSODA", jac=jacobian, rtol=_RTOL, atol=_ATOL
        )
        if not found.success:
            remedy = f"choose a shorter time: {found.message}"
            raise ConvergenceError("VanillaDiscriminator", float(1 - found.t[-1] / self.time), 0.0, found.nfev, remedy)
        return torch.from_numpy(found.y[:, -1].copy()).to(gram.device)


class LambertDiscriminator(InfiniteDiscriminator):
    r"""The cross-entropy's flow as if each eigenvector followed it by itself, in closed form [042].

    A scalar with :math:`\dot f = λ σ(-f)` is :math:`f = 1 + λt - W(e^{1 + λt})`, with Lambert's W. Taking that along
    each eigenvector of the kernel is exact where the kernel is diagonal, and an approximation elsewhere;
    :class:`VanillaDiscriminator` is exact.

    Args:
        kernel: k.
        time: t > 0.
    """

    loss = VanillaLoss()

    def coefficients(
        self, gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"], signs: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """By the eigenvectors; along those of zero the limit t/2."""
        values, vectors = weighted_spectrum(gram, weights)
        reach = self.time * values
        small = reach < 1e-8
        steps = 1 + reach - torch.from_numpy(wrightomega(1 + reach.cpu().numpy())).to(reach)
        gain = torch.where(small, self.time / 2, steps / values.where(~small, 1.0))
        # Along y itself: f_i moves with y_i, so that labels enter as they do for a diagonal kernel.
        root = weights.sqrt()
        return root * (vectors @ (gain * (vectors.mT @ (root * signs))))
