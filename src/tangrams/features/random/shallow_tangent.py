"""Tangent features of the first layer of a two-layer network, with all derivatives in closed form."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.features.random.columnwise import ColumnwiseFeatures, ColumnwiseRows, Samples, as_vectors
from tangrams.features.random.couplings import IIDCoupling
from tangrams.features.random.derivatives import (
    Activation,
    check_second_derivative,
    derivative,
    describe_activation,
    second_derivative,
)
from tangrams.features.random.stream import WeightStream
from tangrams.operators.dense_rows import PANEL_BYTES
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Column


class ShallowTangentFeatures(ColumnwiseFeatures):
    r"""The gradient of a network of k hidden units in its first weight, at random weights [001].

    .. math:: φ(x) = \frac{1}{\sqrt{k d}}\, σ'(u) \otimes x, \qquad u = \frac{1}{\sqrt d} W x, \quad W_{ij} \sim N(0, 1)

    that of :math:`f(x) = \frac{1}{\sqrt k} \sum_j \pm σ(u_j)` but for the signs, which change neither inner products
    nor what a minimum-norm fit predicts; with as many + as − the network starts at zero. d·k columns, unit after unit,
    as ``weight.flatten()`` has them. The Gram matrix is :math:`(X X^T) \circ (A A^T) / k d` with
    :math:`A = σ'(U)`, in O(n² (d + k)): features are never formed for it.

    Args:
        in_features: d, entries of a sample, whatever its shape.
        num_units: k.
        activation: σ, elementwise and once differentiable; twice for derivatives in the input.
        seed: fixes every draw.

    Shape:
        ``(n, …)`` with d entries in a sample → ``(n, k d)``.

    Raises:
        ValueError: if a size is below one.

    Example:
        >>> phi = ShallowTangentFeatures(3, 100, torch.tanh, seed=0)
        >>> phi.gram(torch.eye(3)).shape, phi(torch.eye(3)).shape
        (torch.Size([3, 3]), torch.Size([3, 300]))
    """

    def __init__(self, in_features: int, num_units: int, activation: Activation, *, seed: int = 0) -> None:
        super().__init__()
        if in_features < 1 or num_units < 1:
            raise ValueError(f"ShallowTangentFeatures needs sizes ≥ 1, got {in_features} and {num_units}")
        self.in_features, self.num_units = int(in_features), int(num_units)
        self.activation, self.seed = activation, int(seed)
        self._stream = WeightStream(self.in_features, self.num_units, IIDCoupling(), self.seed)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The first weight."""
        size = self.num_units * self.in_features
        return (Column("weight", (self.num_units, self.in_features), 0, size),)

    @property
    def panel_unit(self) -> int:
        """Columns of the units that are drawn together."""
        return self._stream.strip * self.in_features

    def weights(self, start: int, stop: int, like: Tensor) -> Float[Tensor, "width d"]:
        """W / √d of the units ``start … stop``.

        Args:
            start: the first unit.
            stop: one past the last.
            like: gives dtype and device.
        """
        return self._stream.rows(start, stop, like).W / math.sqrt(self.in_features)

    def slopes(self, x: Tensor, start: int, stop: int) -> Float[Tensor, "n width"]:
        """σ′(u) of the units ``start … stop``.

        Args:
            x: samples.
            start: the first unit.
            stop: one past the last.
        """
        return derivative(self.activation, x @ self.weights(start, stop, x).mT)

    def panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """The columns ``start … stop``."""
        (x,), d = samples, self.in_features
        first, last = start // d, -(-stop // d)
        slopes = self.slopes(x, first, last)
        columns = (slopes[:, :, None] * x[:, None, :]).flatten(1) * self._scale
        return columns[:, start - first * d : stop - first * d]

    def lazy(self, samples: Samples, dtype: torch.dtype) -> ColumnwiseRows:
        """Rows that know the structure of their Gram matrix."""
        return _ShallowTangentRows(self, samples, dtype)

    def input_jacobian(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d p"]:
        """∂φ_j(z) / ∂z_i of each sample, dense.

        An :class:`~tangrams.features.random.ActivationError` answers an activation whose slope jumps.

        Args:
            z: samples.
        """
        z = self._points(z)
        W = self.weights(0, self.num_units, z)
        u = z @ W.mT
        direct = derivative(self.activation, u)[:, None, :, None] * torch.eye(self.in_features).to(z)[:, None, :]
        bend = W.mT[:, :, None] * second_derivative(self.activation, u)[:, None, :, None] * z[:, None, None, :]
        return (direct + bend).flatten(2) * self._scale

    def input_vjp(self, z: Float[Tensor, "n d"], theta: Float[Tensor, "p"]) -> Float[Tensor, "n d"]:
        r"""∇_z ⟨φ(z), θ⟩ of each sample: :math:`T^T σ'(u) + W^T (σ''(u) \circ T z) / \sqrt d` for θ as T, ``(k, d)``.

        An :class:`~tangrams.features.random.ActivationError` answers an activation whose slope jumps.

        Args:
            z: samples.
            theta: θ.
        """
        z = self._points(z)
        T = theta.to(z).reshape(self.num_units, self.in_features)
        out = torch.zeros_like(z)
        for start, stop in self._units(len(z)):
            W, part = self.weights(start, stop, z), T[start:stop]
            u = z @ W.mT
            out += derivative(self.activation, u) @ part
            out += (second_derivative(self.activation, u) * (z @ part.mT)) @ W
        return out * self._scale

    def kernel_gradient(self, z: Float[Tensor, "b d"], x: Float[Tensor, "n d"]) -> Float[Tensor, "b d n"]:
        """∂⟨φ(z), φ(x_i)⟩ / ∂z: the Jacobian of φ at z times the features of x, which are never formed.

        An :class:`~tangrams.features.random.ActivationError` answers an activation whose slope jumps.

        Args:
            z: where.
            x: samples.
        """
        z, x = self._points(z), self._points(x, "x")
        inner, out = z.new_zeros(len(z), len(x)), z.new_zeros(len(z), self.in_features, len(x))
        for start, stop in self._units(len(z) + len(x)):
            W = self.weights(start, stop, z)
            u, slopes = z @ W.mT, derivative(self.activation, x @ W.mT)
            inner += derivative(self.activation, u) @ slopes.mT
            out += (W.mT * second_derivative(self.activation, u)[:, None, :]) @ slopes.mT
        return (inner[:, None, :] * x.mT + out * (z @ x.mT)[:, None, :]) * self._scale**2

    def describe(self) -> dict[str, Any]:
        """Class, sizes, activation and seed."""
        return {
            "class": type(self).__name__,
            "in_features": self.in_features,
            "num_units": self.num_units,
            "activation": describe_activation(self.activation),
            "seed": self.seed,
        }

    def extra_repr(self) -> str:
        """Sizes and seed."""
        return f"{self.in_features}, num_units={self.num_units}, seed={self.seed}"

    @property
    def _scale(self) -> float:
        return 1 / math.sqrt(self.num_units * self.in_features)

    def _units(self, rows: int) -> list[tuple[int, int]]:
        """Units in turns whose slopes at so many samples are a panel."""
        strip = self._stream.strip
        step = strip * max(1, PANEL_BYTES // (8 * strip * max(1, rows + self.in_features)))
        return [(start, min(start + step, self.num_units)) for start in range(0, self.num_units, step)]

    def _points(self, z: Tensor, name: str = "z") -> Tensor:
        check_second_derivative(self.activation, type(self).__name__)
        return as_vectors(z, self.in_features, type(self).__name__, name)


class _ShallowTangentRows(ColumnwiseRows):
    """Rows whose inner products come from those of samples and of slopes."""

    phi: ShallowTangentFeatures

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        (x,) = self.samples
        total = x.new_zeros(len(x))
        with torch.no_grad():
            for start, stop in self.phi._units(len(x)):
                total += self.phi.slopes(x, start, stop).square().sum(1)
        return (total * x.square().sum(1) * self.phi._scale**2).to(self.dtype)

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ = (X Yᵀ) ∘ (A Bᵀ) / kd``."""
        if not isinstance(other, _ShallowTangentRows) or other.phi is not self.phi:
            return super().gram(other)
        x, y = self.samples[0], other.samples[0].to(self.samples[0])
        inner = x.new_zeros(len(x), len(y))
        with torch.no_grad():
            for start, stop in self.phi._units(len(x) + len(y)):
                left = self.phi.slopes(x, start, stop)
                right = left if other is self else self.phi.slopes(y, start, stop)
                inner += left @ right.mT
        return (inner * (x @ y.mT) * self.phi._scale**2).to(self.dtype)
