"""Duals of smooth activations in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tangrams.kernels.ntk.dual import DualActivation


@dataclass(frozen=True)
class Erf(DualActivation):
    r"""``a erf(b u)`` [055].

    .. math:: T = \frac{2a^2}{π} \arcsin \frac{2b^2 r}{\sqrt{(1 + 2b^2 p)(1 + 2b^2 q)}}, \qquad
              \dot T = \frac{4 a^2 b^2}{π \sqrt{(1 + 2b^2 p)(1 + 2b^2 q) - 4 b^4 r^2}}

    Args:
        a: the height.
        b: the slope.
    """

    a: float = 1.0
    b: float = 1.0

    odd = True

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return self.a * torch.erf(self.b * u)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """An arc sine, in the form that keeps its digits near one."""
        double = 2 * self.b**2
        return 2 * self.a**2 / torch.pi * torch.atan2(double * r, determinant(double, p, q, r).sqrt())

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        return 4 * self.a**2 * self.b**2 / (torch.pi * determinant(2 * self.b**2, p, q, r).sqrt())


@dataclass(frozen=True)
class Sin(DualActivation):
    r"""``a sin(b u + c)`` [055].

    .. math:: T = \frac{a^2}{2} \left(e^{-b^2 (p + q - 2r)/2} - \cos(2c)\, e^{-b^2 (p + q + 2r)/2}\right), \qquad
              \dot T = \frac{a^2 b^2}{2} \left(e^{-b^2 (p + q - 2r)/2} + \cos(2c)\, e^{-b^2 (p + q + 2r)/2}\right)

    Args:
        a: the height.
        b: the frequency.
        c: the phase.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    @property
    def odd(self) -> bool:
        """Without a phase."""
        return self.c == 0

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return self.a * torch.sin(self.b * u + self.c)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """A Gaussian of the difference less one of the sum."""
        near, far = self._parts(p, q, r)
        return self.a**2 / 2 * (near - math.cos(2 * self.c) * far)

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        near, far = self._parts(p, q, r)
        return (self.a * self.b) ** 2 / 2 * (near + math.cos(2 * self.c) * far)

    def _parts(self, p: Tensor, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        half = self.b**2 / 2
        return torch.exp(-half * (p + q - 2 * r)), torch.exp(-half * (p + q + 2 * r))


@dataclass(frozen=True)
class Cos(DualActivation):
    """``a cos(b u + c)``, a sine a quarter turn on [055].

    Args:
        a: the height.
        b: the frequency.
        c: the phase.
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return self.a * torch.cos(self.b * u + self.c)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """That of the sine with phase c + π/2."""
        return self._sine().T(p, q, r)

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """That of the sine with phase c + π/2."""
        return self._sine().Tdot(p, q, r)

    def _sine(self) -> Sin:
        return Sin(self.a, self.b, self.c + math.pi / 2)


@dataclass(frozen=True)
class RBF(DualActivation):
    r"""``√2 sin(√(2γ) u + π/4)``, whose NNGP is the Gaussian kernel of the inputs [055].

    .. math:: T = e^{-γ (p + q - 2r)}, \qquad \dot T = 2γ T

    Args:
        gamma: γ.

    Raises:
        ValueError: if ``gamma <= 0``.
    """

    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"RBF needs gamma > 0, got {self.gamma}")

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return math.sqrt(2) * torch.sin(math.sqrt(2 * self.gamma) * u + math.pi / 4)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """A Gaussian of the difference."""
        return torch.exp(-self.gamma * (p + q - 2 * r))

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        return 2 * self.gamma * self.T(p, q, r)


@dataclass(frozen=True)
class Exp(DualActivation):
    r"""``a e^{b u}`` [055].

    .. math:: T = a^2 e^{b^2 (p + q + 2r)/2}, \qquad \dot T = b^2 T

    Args:
        a: the height.
        b: the rate.
    """

    a: float = 1.0
    b: float = 1.0

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return self.a * torch.exp(self.b * u)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The moment of a log-normal."""
        return self.a**2 * torch.exp(self.b**2 / 2 * (p + q + 2 * r))

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        return self.b**2 * self.T(p, q, r)


@dataclass(frozen=True)
class Gaussian(DualActivation):
    r"""``a e^{-b u²}`` [055].

    .. math:: T = \frac{a^2}{\sqrt{D}}, \qquad \dot T = \frac{4 a^2 b^2 r}{D^{3/2}}, \qquad
              D = (1 + 2bp)(1 + 2bq) - 4 b^2 r^2

    Args:
        a: the height.
        b: the rate.

    Raises:
        ValueError: if ``b < 0``.
    """

    a: float = 1.0
    b: float = 1.0

    def __post_init__(self) -> None:
        if self.b < 0:
            raise ValueError(f"Gaussian needs b ≥ 0, got {self.b}: its second moment is infinite otherwise")

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return self.a * torch.exp(-self.b * u.square())

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """A determinant."""
        return self.a**2 * determinant(2 * self.b, p, q, r).rsqrt()

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        return 4 * self.a**2 * self.b**2 * r * determinant(2 * self.b, p, q, r).pow(-1.5)


@dataclass(frozen=True)
class GELU(DualActivation):
    r"""``u Φ(u)``, with Φ the distribution function of the standard normal [055].

    With D = (1 + p)(1 + q) − r², e = 1 / (2π√D), which is E φ(u) φ(v) of two normal densities, and
    s = 1/4 + arcsin(r / √((1 + p)(1 + q))) / 2π, which is E Φ(u) Φ(v), Stein's lemma gives

    .. math:: T = r s + e \left(p q + r^2 \left(\tfrac{1}{1+p} + \tfrac{1}{1+q} - 1\right)\right), \qquad
              \dot T = s + e r \left(\tfrac{1}{1+p} + \tfrac{1}{1+q} + \tfrac{1}{D}\right)
    """

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return torch.nn.functional.gelu(u)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """By Stein's lemma."""
        _, density, both = self._parts(p, q, r)
        return r * both + density * (p * q + r**2 * (1 / (1 + p) + 1 / (1 + q) - 1))

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        D, density, both = self._parts(p, q, r)
        return both + density * r * (1 / (1 + p) + 1 / (1 + q) + 1 / D)

    def _parts(self, p: Tensor, q: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        D = determinant(1.0, p, q, r)
        both = 0.25 + torch.atan2(r, D.sqrt()) / (2 * torch.pi)
        return D, D.rsqrt() / (2 * torch.pi), both


def determinant(s: float, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
    """``det(I + s [[p, r], [r, q]])``, so expanded that it stays positive where units coincide."""
    return 1 + s * (p + q) + s**2 * (p * q - r**2)
