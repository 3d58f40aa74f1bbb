"""Random features: the units of a layer that is never trained."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.features.random.columnwise import ColumnwiseFeatures, Samples, as_vectors
from tangrams.features.random.couplings import Coupling, IIDCoupling
from tangrams.features.random.derivatives import Activation, derivative, describe_activation
from tangrams.features.random.stream import WeightStream
from tangrams.operators.dense_rows import PANEL_BYTES


class RandomFeatures(ColumnwiseFeatures):
    r"""The k units of a random layer; its Gram matrix tends to the kernel of an infinitely wide one.

    .. math:: \varphi(x) = \frac{1}{\sqrt k}\, σ\!\left(\frac{σ_w}{\sqrt d} W x + σ_b b\right), \qquad
              W_{ij}, b_i \sim N(0, 1)

    so that :math:`E\, φ(x)^T φ(x') = E\, σ(u) σ(u')` over Gaussians with covariance
    :math:`σ_w^2 x^T x' / d + σ_b^2`: for ReLU the arc-cosine kernel. Column j depends on (seed, j) alone, so that the
    first features of a wider map are those of a narrower one times √(k′/k). Rahimi and Recht (2008); [001].

    Args:
        in_features: d, entries of a sample, whatever its shape.
        num_features: k.
        activation: σ, elementwise.
        weight_std: σ_w.
        bias_std: σ_b.
        coupling: the joint law of the rows of W.
        seed: fixes every draw.

    Shape:
        ``(n, …)`` with d entries in a sample → ``(n, k)``.

    Raises:
        ValueError: if a size is below one or a standard deviation negative.

    Example:
        >>> phi = RandomFeatures(3, 1000, torch.tanh, seed=0)
        >>> phi.gram(torch.eye(3)).shape, phi(torch.eye(3)).shape
        (torch.Size([3, 3]), torch.Size([3, 1000]))
    """

    def __init__(
        self,
        in_features: int,
        num_features: int,
        activation: Activation = torch.relu,
        *,
        weight_std: float = 1.0,
        bias_std: float = 0.0,
        coupling: Coupling | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if in_features < 1 or num_features < 1:
            raise ValueError(f"RandomFeatures needs sizes ≥ 1, got {in_features} and {num_features}")
        if not (weight_std >= 0 and bias_std >= 0):
            raise ValueError(f"RandomFeatures needs standard deviations ≥ 0, got {weight_std} and {bias_std}")
        self.in_features, self._num_features = int(in_features), int(num_features)
        self.activation = activation
        self.weight_std, self.bias_std = float(weight_std), float(bias_std)
        self.coupling = coupling or IIDCoupling()
        self.seed = int(seed)
        self._stream = WeightStream(self.in_features, self._num_features, self.coupling, self.seed)

    @property
    def num_features(self) -> int:
        """K."""
        return self._num_features

    @property
    def panel_unit(self) -> int:
        """Rows of W that are drawn together."""
        return self._stream.strip

    def weights(self, start: int, stop: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of the scaled weight σ_w W / √d and of the bias σ_b b: ``(width, d)`` and ``(width,)``.

        Args:
            start: the first.
            stop: one past the last.
            like: gives dtype and device.
        """
        W, b = self._stream.rows(start, stop, like)
        return W * (self.weight_std / math.sqrt(self.in_features)), b * self.bias_std

    def panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """The columns ``start … stop``."""
        return self.activation(self._units(samples[0], start, stop)) / math.sqrt(self.num_features)

    def input_jacobian(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n d k"]:
        """∂φ_j(z) / ∂z_i of each sample.

        Args:
            z: samples.
        """
        z = self._points(z)
        W, _ = self.weights(0, self.num_features, z)
        slope = derivative(self.activation, self._units(z, 0, self.num_features))
        return W.mT * slope[:, None, :] / math.sqrt(self.num_features)

    def input_vjp(self, z: Float[Tensor, "n d"], theta: Float[Tensor, "k"]) -> Float[Tensor, "n d"]:
        """∇_z ⟨φ(z), θ⟩ of each sample, a panel of features at a time.

        Args:
            z: samples.
            theta: θ.
        """
        z = self._points(z)
        out = torch.zeros_like(z)
        for start, stop in self._turns(len(z)):
            W, _ = self.weights(start, stop, z)
            slope = derivative(self.activation, self._units(z, start, stop))
            out += (slope * theta[start:stop].to(z)) @ W
        return out / math.sqrt(self.num_features)

    def kernel_gradient(self, z: Float[Tensor, "b d"], x: Float[Tensor, "n d"]) -> Float[Tensor, "b d n"]:
        """∂⟨φ(z), φ(x_i)⟩ / ∂z: the Jacobian of φ at z times the features of x, a panel of features at a time.

        Args:
            z: where.
            x: samples.
        """
        z, x = self._points(z), self._points(x)
        out = z.new_zeros(len(z), self.in_features, len(x))
        for start, stop in self._turns(len(z) + len(x)):
            W, _ = self.weights(start, stop, z)
            slope = derivative(self.activation, self._units(z, start, stop))
            out += (W.mT * slope[:, None, :]) @ self.activation(self._units(x, start, stop)).mT
        return out / self.num_features

    def describe(self) -> dict[str, Any]:
        """Class, sizes, scales, activation, coupling and seed."""
        return {
            "class": type(self).__name__,
            "in_features": self.in_features,
            "num_features": self.num_features,
            "activation": describe_activation(self.activation),
            "weight_std": self.weight_std,
            "bias_std": self.bias_std,
            "coupling": self.coupling.describe(),
            "seed": self.seed,
        }

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in_features}, {self.num_features}, seed={self.seed}"

    def _turns(self, rows: int) -> list[tuple[int, int]]:
        """Features in turns that are a panel at so many samples."""
        step = self.panel_unit * max(1, PANEL_BYTES // (8 * self.panel_unit * max(1, rows + self.in_features)))
        return [(start, min(start + step, self.num_features)) for start in range(0, self.num_features, step)]

    def _units(self, x: Tensor, start: int, stop: int) -> Tensor:
        projections, b = self._stream.project(x * (self.weight_std / math.sqrt(self.in_features)), start, stop)
        return projections + b * self.bias_std if self.bias_std else projections

    def _points(self, z: Tensor) -> Tensor:
        return as_vectors(z, self.in_features, type(self).__name__, "z")
