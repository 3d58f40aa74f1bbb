r"""The role of an activation at infinite width: its dual, two functions of variances and a covariance.

.. math:: T(p, q, r) = E\,φ(u) φ(v), \qquad \dot T(p, q, r) = E\,φ'(u) φ'(v), \qquad
          (u, v) \sim N\!\left(0, \begin{pmatrix} p & r \\ r & q \end{pmatrix}\right)

An activation maps (K, Θ) to (T(K), Θ ∘ Ṫ(K)) [055]. Price's theorem gives ∂T/∂r = Ṫ.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from tangrams.kernels.ntk.layers import Layer
from tangrams.kernels.ntk.state import KernelState


class DualActivation(Layer):
    """An elementwise nonlinearity φ; a member writes φ itself, T and Ṫ."""

    odd: bool = False
    """Whether φ(−u) = −φ(u), so that its units have mean zero."""

    @abstractmethod
    def function(self, u: Tensor) -> Tensor:
        """φ(u), elementwise."""

    @abstractmethod
    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """E φ(u) φ(v) for variances p, q and covariance r, all of shapes that broadcast."""

    @abstractmethod
    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """E φ′(u) φ′(v)."""

    def T_and_Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Both; a member whose two share most of their work writes it."""
        return self.T(p, q, r), self.Tdot(p, q, r)

    def __call__(self, state: KernelState) -> KernelState:
        """T of the covariances, and Ṫ times the NTK."""
        if not state.gaussian:
            raise ValueError(
                f"{type(self).__name__} needs Gaussian units, which come out of a weight layer: "
                "put Dense or Conv before it"
            )
        first, second = state.at_equal_positions(state.self1), state.at_equal_positions(state.self2)
        p, q = state.left(first), state.right(second)
        if state.ntk is None:
            nngp, ntk = self.T(p, q, state.nngp), None
        else:
            nngp, slope = self.T_and_Tdot(p, q, state.nngp)
            ntk = state.ntk * slope
        if state.nngp is state.self1 and state.nngp is state.self2:  # the diagonal path
            self1 = self2 = nngp
        else:
            self1 = self.T(p, state.right(first), state.self1)
            self2 = self.T(state.left(second), q, state.self2)
        return replace(
            state,
            nngp=nngp,
            ntk=ntk,
            self1=self1,
            self2=self2,
            gaussian=False,
            centred=self.odd and state.centred,
        )


_CLOSE = 1e-15
"""Below this sin² of the angle between two units is rounding noise of their inner product in float64."""


def sine_and_angle(p: Tensor, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    r"""``√(pq) sin θ`` and θ, where ``cos θ = r / √(pq)``.

    The arc cosine loses half the digits near θ = 0 and has an infinite slope there; ``atan2(√(pq − r²), r)`` with a
    masked root does neither, so that gradients stay finite where samples are duplicated. A unit of variance zero meets
    every other at a right angle, the mean over its undefined directions.
    """
    product = p * q
    square = product - r * r
    apart = square > _CLOSE * product
    sine = torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)
    silent = product <= 0
    return sine, torch.where(silent, torch.pi / 2, torch.atan2(sine, torch.where(silent, 1.0, r)))


def half_angle_weight(theta: Tensor) -> Tensor:
    """``(π − θ) / 2π``, the chance that two Gaussians at angle θ are both positive."""
    return (torch.pi - theta) / (2 * torch.pi)
