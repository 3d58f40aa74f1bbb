"""Positive random features of the Gaussian and the softmax kernel: exponentials of random projections."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tangrams.features.random.columnwise import Samples
from tangrams.features.random.couplings import SimplexCoupling
from tangrams.features.random.kernel_features import KernelFeatures, gaussian


class PositiveFeatures(KernelFeatures):
    """What both maps share: features e^(w·x − c ‖x‖²), computed from their logarithms."""

    norm_weight: float
    """c."""
    default_coupling = SimplexCoupling

    def log_panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """Logarithms of the columns ``start … stop``.

        Args:
            samples: judged samples.
            start: the first column.
            stop: one past the last.
        """
        x = samples[0] / self.lengthscale
        projections, _ = self._stream.project(x, start, stop)
        return projections - self.norm_weight * x.square().sum(1, keepdim=True) - math.log(self.num_features) / 2

    def log_features(self, x: Tensor) -> Float[Tensor, "n m"]:
        """Log φ(x), where the features themselves would overflow.

        Args:
            x: samples.
        """
        return self.log_panel(self.judge(x), 0, self.num_features)

    def panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """The columns ``start … stop``."""
        return self.log_panel(samples, start, stop).exp()

    @abstractmethod
    def kernel(self, x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
        """The kernel that is estimated."""

    def variance(self, x: Tensor, y: Tensor) -> Float64[Tensor, "n"]:
        r"""Var ⟨φ(x_i), φ(y_i)⟩ over draws [083].

        .. math:: e^{-2c\lVert x \rVert^2 - 2c\lVert y \rVert^2} \left[\frac{e^{2V} - e^V}{m} +
                  \frac{P}{m^2} (ρ - e^V)\right], \qquad V = \lVert x + y \rVert^2

        with P ordered pairs of coupled directions (m (m − 1) of a single group) and their RF-conformity ρ.

        Args:
            x: n samples.
            y: n samples.
        """
        x, y = self.scaled(x).double(), self.scaled(y, "y").double()
        V = (x + y).square().sum(1)
        prefactor = -2 * self.norm_weight * (x.square().sum(1) + y.square().sum(1))
        m = self.num_directions
        alone = torch.exp(prefactor + 2 * V) * -torch.expm1(-V) / m
        pairs = self.coupling.coupled_pairs(m, self.in_features)
        if pairs == 0:
            return alone
        conformity = self.coupling.log_conformity(self.in_features, V.cpu()).to(V)
        return alone + pairs / m**2 * torch.exp(prefactor + V) * torch.expm1(conformity - V)


class PositiveRandomFeatures(PositiveFeatures):
    r"""Positive random features of the Gaussian kernel :math:`e^{-\lVert x - y \rVert^2 / 2ℓ^2}` [083].

    .. math:: φ(x)_i = \frac{1}{\sqrt m} \exp\!\left(w_i^T \tfrac{x}{ℓ} - \frac{\lVert x \rVert^2}{ℓ^2}\right), \qquad
              w_i \sim N(0, I)

    Unbiased under every coupling of the w_i; simplex directions have the smallest mean squared error of those that do
    not look at the lengths. The error grows like :math:`e^{2\lVert x + y \rVert^2 / ℓ^2}`: where the kernel is
    small or samples are long, trigonometric features are better.

    Args:
        in_features: d, entries of a sample, whatever its shape.
        num_features: m; a last group of directions may be cut, which keeps the features unbiased.
        coupling: the joint law of the directions; a regular simplex by default.
        lengthscale: ℓ.
        seed: fixes every draw.

    Shape:
        ``(n, …)`` with d entries in a sample → ``(n, m)``, all positive.

    Example:
        >>> x = torch.full((1, 4), 0.2)
        >>> phi = PositiveRandomFeatures(4, 4096)
        >>> round(float(phi.gram(x, -x)), 2), round(float(phi.kernel(x, -x)), 2)
        (0.73, 0.73)
    """

    norm_weight = 1.0

    def kernel(self, x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
        """The Gaussian kernel."""
        return gaussian(self.scaled(x), self.scaled(y, "y"))


class SoftmaxRandomFeatures(PositiveFeatures):
    r"""Positive random features of the softmax kernel :math:`e^{x^T y / ℓ^2}`, as linear attention takes them [083].

    .. math:: φ(x)_i = \frac{1}{\sqrt m} \exp\!\left(w_i^T \tfrac{x}{ℓ} - \frac{\lVert x \rVert^2}{2 ℓ^2}\right),
              \qquad w_i \sim N(0, I)

    Args:
        in_features: d, entries of a sample, whatever its shape.
        num_features: m; a last group of directions may be cut, which keeps the features unbiased.
        coupling: the joint law of the directions; a regular simplex by default.
        lengthscale: ℓ.
        seed: fixes every draw.

    Shape:
        ``(n, …)`` with d entries in a sample → ``(n, m)``, all positive.
    """

    norm_weight = 0.5

    def kernel(self, x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
        """The softmax kernel, not normalised."""
        return torch.exp(self.scaled(x) @ self.scaled(y, "y").mT)
