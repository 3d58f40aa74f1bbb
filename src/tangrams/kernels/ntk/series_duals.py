"""Duals of polynomials, exactly, and of any other activation, by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tangrams.kernels.ntk.dual import DualActivation


class Polynomial(DualActivation):
    r"""``Σ_i a_i uⁱ`` [055].

    In Hermite polynomials of variance p, φ(u) = Σ_k B_k(p) He_k(u; p), and E He_k(u; p) He_l(v; q) = k! r^k δ_kl:

    .. math:: T = \sum_k k!\, B_k(p) B_k(q)\, r^k, \qquad
              B_k(p) = \sum_{i = k + 2m} a_i \frac{i!}{2^m\, m!\, k!}\, p^m

    A polynomial of degree g spans finitely many functions: the Gram matrix of more samples than they are is singular.

    Args:
        coefficients: a_0, a_1, …

    Raises:
        ValueError: if there are none, or one is not finite.
    """

    def __init__(self, coefficients: Sequence[float]) -> None:
        values = tuple(float(value) for value in coefficients)
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f"Polynomial needs finite coefficients a_0, a_1, …, got {values}")
        self.coefficients = values

    @property
    def odd(self) -> bool:
        """With odd powers only."""
        return not any(self.coefficients[::2])

    def function(self, u: Tensor) -> Tensor:
        """φ(u), by Horner's rule."""
        total = torch.zeros_like(u)
        for coefficient in reversed(self.coefficients):
            total = total * u + coefficient
        return total

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """Mehler's formula."""
        total = torch.zeros_like(r)
        for k in range(len(self.coefficients)):
            total = total + math.factorial(k) * self._component(k, p) * self._component(k, q) * r**k
        return total

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The slope of T in r."""
        total = torch.zeros_like(r)
        for k in range(1, len(self.coefficients)):
            both = self._component(k, p) * self._component(k, q)
            total = total + math.factorial(k) * k * both * r ** (k - 1)
        return total

    def _component(self, k: int, p: Tensor) -> Tensor:
        total = torch.zeros_like(p)
        for m, coefficient in enumerate(self.coefficients[k::2]):
            weight = math.factorial(k + 2 * m) / (2**m * math.factorial(m) * math.factorial(k))
            total = total + coefficient * weight * p**m
        return total

    def __repr__(self) -> str:
        return f"Polynomial({list(self.coefficients)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.coefficients == other.coefficients

    def __hash__(self) -> int:
        return hash(("Polynomial", self.coefficients))


class Hermite(Polynomial):
    """The probabilist's Hermite polynomial over ``√degree!``: for unit variances T is ``r^degree`` [055].

    Args:
        degree: of the polynomial.

    Raises:
        ValueError: if ``degree < 0``.
    """

    def __init__(self, degree: int) -> None:
        if degree < 0:
            raise ValueError(f"Hermite needs a degree ≥ 0, got {degree}")
        basis = np.polynomial.hermite_e.herme2poly([0.0] * degree + [1.0])
        super().__init__((basis / math.sqrt(math.factorial(degree))).tolist())
        self.degree = degree

    def __repr__(self) -> str:
        return f"Hermite({self.degree})"


class QuadratureDual(DualActivation):
    r"""Any activation, by Gauss–Hermite quadrature over two independent normals [055].

    .. math:: u = \sqrt{p}\, z_1, \qquad v = \frac{r}{\sqrt{p}} z_1 + \sqrt{q - \frac{r^2}{p}}\; z_2

    Exact to rounding for smooth functions; with a kink the error is about 10⁻³ whatever the order, so take the closed
    duals of the ReLU family.

    Args:
        fn: φ, elementwise and differentiable by torch.
        order: nodes per normal.
        odd: whether φ(−u) = −φ(u).

    Raises:
        ValueError: if ``order < 1``.
    """

    def __init__(self, fn: Callable[[Tensor], Tensor], order: int = 64, *, odd: bool = False) -> None:
        if order < 1:
            raise ValueError(f"QuadratureDual needs an order ≥ 1, got {order}")
        nodes, weights = np.polynomial.hermite_e.hermegauss(order)
        self.fn = fn
        self.order = order
        self.odd = odd
        self._nodes = torch.from_numpy(nodes)
        self._weights = torch.from_numpy(weights / weights.sum())

    def function(self, u: Tensor) -> Tensor:
        """φ(u)."""
        return self.fn(u)

    def T(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The mean of φ(u) φ(v) over the nodes."""
        return self._mean(self.fn, p, q, r)

    def Tdot(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        """The mean of φ′(u) φ′(v) over the nodes."""
        return self._mean(self._derivative, p, q, r)

    def _derivative(self, u: Tensor) -> Tensor:
        return torch.func.jvp(self.fn, (u,), (torch.ones_like(u),))[1]

    def _mean(self, fn: Callable[[Tensor], Tensor], p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        nodes, weights = self._nodes.to(r), self._weights.to(r)
        silent = p <= 0
        std = torch.where(silent, 0.0, torch.where(silent, 1.0, p).sqrt())
        slope = torch.where(silent, 0.0, r / torch.where(silent, 1.0, std))
        # The root's argument is held off zero by its value alone, not its gradient: the first-order terms of T in
        # the root cancel over z₂, and what is left is smooth where samples coincide.
        rest = q - slope**2
        floor = 1e-14 * q + torch.finfo(r.dtype).tiny
        rest = torch.where(rest > floor, rest, rest + (floor - rest).detach())
        spread = rest.sqrt()
        total = torch.zeros_like(r)
        for node, weight in zip(nodes, weights, strict=True):
            centre = slope * node
            inner = torch.zeros_like(r)
            for other, share in zip(nodes, weights, strict=True):
                inner = inner + share * fn(centre + spread * other)
            total = total + weight * fn(std * node) * inner
        return total

    def __repr__(self) -> str:
        return f"QuadratureDual({getattr(self.fn, '__name__', self.fn)!s}, order={self.order})"
