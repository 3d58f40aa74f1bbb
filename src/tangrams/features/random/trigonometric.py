"""Trigonometric random features of the Gaussian kernel."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tangrams.features.random.columnwise import Samples
from tangrams.features.random.couplings import OrthogonalCoupling
from tangrams.features.random.kernel_features import KernelFeatures, gaussian


class TrigonometricRandomFeatures(KernelFeatures):
    r"""Cosines and sines of random projections: bounded features of the Gaussian kernel.

    .. math:: φ(x)_{2i}, φ(x)_{2i+1} = \frac{1}{\sqrt m} \cos\!\left(w_i^T \tfrac{x}{ℓ}\right),
              \frac{1}{\sqrt m} \sin\!\left(w_i^T \tfrac{x}{ℓ}\right), \qquad w_i \sim N(0, I)

    Every row has norm one, and the error is bounded whatever the samples. The simplex is not the best coupling here;
    orthogonal directions, the default, are as good or better. Rahimi and Recht (2008), Yu et al. (2016).

    Args:
        in_features: d, entries of a sample, whatever its shape.
        num_features: 2m, even.
        coupling: the joint law of the directions; orthogonal by default.
        lengthscale: ℓ.
        seed: fixes every draw.

    Shape:
        ``(n, …)`` with d entries in a sample → ``(n, 2m)``.
    """

    columns_per_direction = 2
    default_coupling = OrthogonalCoupling

    def panel(self, samples: Samples, start: int, stop: int) -> Float[Tensor, "n width"]:
        """The columns ``start … stop``."""
        first = start // 2
        projections, _ = self._stream.project(samples[0] / self.lengthscale, first, -(-stop // 2))
        pairs = torch.stack([projections.cos(), projections.sin()], -1).flatten(1)
        return pairs[:, start - 2 * first : stop - 2 * first] / math.sqrt(self.num_directions)

    def kernel(self, x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
        """The Gaussian kernel."""
        return gaussian(self.scaled(x), self.scaled(y, "y"))

    def variance(self, x: Tensor, y: Tensor) -> Float64[Tensor, "n"]:
        r"""Var ⟨φ(x_i), φ(y_i)⟩ over draws.

        .. math:: \frac{(1 - e^{-Z})^2}{2 m} + \frac{P}{m^2} \left(E \cos(w^T z) \cos(w'^T z) - e^{-Z}\right),
                  \qquad z = x - y,\; Z = \lVert z \rVert^2

        with P ordered pairs of coupled directions w, w′.

        Args:
            x: n samples.
            y: n samples.
        """
        Z = (self.scaled(x).double() - self.scaled(y, "y").double()).square().sum(1)
        m = self.num_directions
        alone = torch.expm1(-Z).square() / (2 * m)
        pairs = self.coupling.coupled_pairs(m, self.in_features)
        if pairs == 0:
            return alone
        conformity = self.coupling.cosine_conformity(self.in_features, Z.cpu()).to(Z)
        return alone + pairs / m**2 * (conformity - torch.exp(-Z))
