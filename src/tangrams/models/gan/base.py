"""The role of a discriminator, and those of infinite width."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.learners.base import HasGram
from tangrams.models.gan.losses import AdversarialLoss, labels


class Discriminator(ABC):
    """A function f fitted to tell fake samples from real ones; differentiable in where it is asked."""

    loss: AdversarialLoss

    @abstractmethod
    def fit(self, fake: Tensor, real: Tensor) -> Discriminator:
        """Learn to tell n fakes from m real samples, ``(n, …)`` and ``(m, …)``."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Float[Tensor, "b"]:
        """The function at some points."""

    def generator_loss(self, x: Tensor) -> Float[Tensor, "b"]:
        """What each of the points would minimise if it were a fake."""
        return self.loss.generator(self(x))


class InfiniteDiscriminator(Discriminator):
    r"""A network of infinite width that starts at zero and learns by gradient flow for a time t [042].

    .. math:: f_t(x) = \sum_i k(x, z_i)\, c_i, \qquad \dot c_i = -w_i\, ℓ'(f_t(z_i)), \qquad w_i = 1/n
                       \text{ for fakes}, \; 1/m \text{ for real samples}

    over the union z of both groups, k the network's tangent kernel. A member writes :meth:`coefficients`.

    Args:
        kernel: k, such as :class:`~tangrams.kernels.FullyConnectedNTK`; a ReLU network needs a bias for f to be smooth
            away from the origin.
        time: t > 0.

    Raises:
        ValueError: if ``time`` is not positive.
    """

    def __init__(self, kernel: HasGram, time: float = 1.0) -> None:
        if not (time > 0 and math.isfinite(time)):
            raise ValueError(f"{type(self).__name__} needs a finite time > 0, got {time}")
        self.kernel = kernel
        self.time = time
        self._support: Tensor | None = None

    @abstractmethod
    def coefficients(
        self, gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"], signs: Float[Tensor, "N"]
    ) -> Float[Tensor, "N"]:
        """What each sample adds at time t, float64.

        Args:
            gram: k over fakes and real samples.
            weights: w.
            signs: −1 for fakes, 1 for real samples.
        """

    def fit(self, fake: Tensor, real: Tensor) -> InfiniteDiscriminator:
        """Solve for the coefficients.

        Args:
            fake: n samples.
            real: m samples.

        Raises:
            ValueError: if a group is empty or not finite, or the two differ in shape.
        """
        if not len(fake) or not len(real) or fake.shape[1:] != real.shape[1:]:
            raise ValueError(
                f"{type(self).__name__} needs fakes and real samples of one shape, got {tuple(fake.shape)} and "
                f"{tuple(real.shape)}"
            )
        for name, group in (("fakes", fake), ("real samples", real)):
            if not bool(torch.isfinite(group).all()):
                raise ValueError(f"{type(self).__name__} got {name} that are not finite: did the flow diverge?")
        support = torch.cat([fake.detach(), real.detach()])
        gram = self.kernel.gram(support).detach().to(torch.float64)
        n, m = len(fake), len(real)
        weights = torch.cat([gram.new_full((n,), 1 / n), gram.new_full((m,), 1 / m)])
        self._coefficients = self.coefficients(gram, weights, labels(n, m, gram))
        self._support = support
        return self

    def __call__(self, x: Tensor) -> Float[Tensor, "b"]:
        """The function at some points.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        if self._support is None:
            raise RuntimeError(f"{type(self).__name__} is not fitted: call fit(fake, real) first")
        gram = self.kernel.gram(x, self._support)
        return (gram.to(torch.float64) @ self._coefficients).to(gram.dtype)


def weighted_spectrum(
    gram: Float[Tensor, "N N"], weights: Float[Tensor, "N"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N N"]]:
    """Eigenvalues, none below zero, and eigenvectors of ``W^{1/2} K W^{1/2}``."""
    root = weights.sqrt()
    values, vectors = torch.linalg.eigh(root[:, None] * gram * root)
    return values.clamp_min(0), vectors
