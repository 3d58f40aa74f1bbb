"""Duals of activations with a kink or a step at zero: the arc-cosine kernels of degree zero and one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tangrams.kernels.ntk.dual import DualActivation, half_angle_weight, sine_and_angle


@dataclass(frozen=True)
class ABReLU(DualActivation):
    r"""``a u`` below zero and ``b u`` above [055].

    .. math:: T = \frac{(a-b)^2}{2π} \left(\sqrt{pq} \sin θ + (π - θ) r\right) + a b\, r, \qquad
              \dot T = \frac{(a-b)^2}{2π} (π - θ) + a b

    Args:
        negative_slope: a.
        positive_slope: b.
    """

    negative_slope: float
    positive_slope: float

    @property
    def odd(self) -> bool:
        """Only when it is linear."""
        return self.negative_slope == self.positive_slope

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return torch.where(u < 0, self.negative_slope * u, self.positive_slope * u)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The arc-cosine kernel of degree one, and a linear part."""
        return self.T_and_Tdot(p, q, r)[0]

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The arc-cosine kernel of degree zero, and a constant."""
        return self.T_and_Tdot(p, q, r)[1]

    def T_and_Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one angle: T = Ṫ r + (a − b)² √(pq) sin θ / 2π."""
        a, b = self.negative_slope, self.positive_slope
        sine, theta = sine_and_angle(p, q, r)
        slope = (a - b) ** 2 * half_angle_weight(theta) + a * b
        return sine * ((a - b) ** 2 / (2 * torch.pi)) + slope * r, slope


@dataclass(frozen=True)
class ReLU(ABReLU):
    """``max(u, 0)`` [055]."""

    negative_slope: float = field(default=0.0, init=False, repr=False)
    positive_slope: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class LeakyReLU(ABReLU):
    """``max(u, 0) + a min(u, 0)`` [055].

    Args:
        negative_slope: a.
    """

    negative_slope: float = 0.01
    positive_slope: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class Abs(ABReLU):
    """``|u|`` [055]."""

    negative_slope: float = field(default=-1.0, init=False, repr=False)
    positive_slope: float = field(default=1.0, init=False, repr=False)


@dataclass(frozen=True)
class Heaviside(DualActivation):
    r"""The unit step [055].

    .. math:: T = \frac{π - θ}{2π}, \qquad \dot T = 0

    Its derivative is zero almost everywhere, which is what gradient descent sees: Ṫ is not ∂T/∂r.
    """

    def function(self, u: Tensor) -> Tensor:
        """φ(u), one half at zero."""
        return torch.heaviside(u, u.new_tensor(0.5))

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The arc-cosine kernel of degree zero."""
        return half_angle_weight(sine_and_angle(p, q, r)[1])

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(r)


@dataclass(frozen=True)
class Sign(DualActivation):
    r"""The sign [055].

    .. math:: T = 1 - \frac{2θ}{π}, \qquad \dot T = 0

    Its derivative is zero almost everywhere, which is what gradient descent sees: Ṫ is not ∂T/∂r.
    """

    odd = True

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return u.sign()

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The arc sine of the correlation."""
        return 1 - 2 * sine_and_angle(p, q, r)[1] / torch.pi

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """Zero."""
        return torch.zeros_like(r)
