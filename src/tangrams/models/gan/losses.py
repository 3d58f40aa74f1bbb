"""Losses of two players: what the discriminator minimises, and what the generator does."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


class AdversarialLoss(ABC):
    """The two losses of a game between a discriminator and a generator."""

    @abstractmethod
    def discriminator(self, fake: Float[Tensor, "n"], real: Float[Tensor, "m"]) -> Tensor:
        """What the discriminator minimises, a mean over each group, from its outputs."""

    @abstractmethod
    def generator(self, fake: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """What each fake minimises, from the discriminator's output there."""


class IPMLoss(AdversarialLoss):
    r"""The integral probability metric: :math:`E f(\text{fake}) - E f(\text{real})`; a fake minimises −f."""

    def discriminator(self, fake: Float[Tensor, "n"], real: Float[Tensor, "m"]) -> Tensor:
        """``E f(fake) − E f(real)``."""
        return fake.mean() - real.mean()

    def generator(self, fake: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """``−f``."""
        return -fake


class HingeLoss(AdversarialLoss):
    r"""The hinge: :math:`E (1 + f(\text{fake}))_+ + E (1 - f(\text{real}))_+`; a fake minimises −f."""

    def discriminator(self, fake: Float[Tensor, "n"], real: Float[Tensor, "m"]) -> Tensor:
        """Hinges on both sides."""
        return F.relu(1 + fake).mean() + F.relu(1 - real).mean()

    def generator(self, fake: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """``−f``."""
        return -fake


class LSGANLoss(AdversarialLoss):
    r"""Least squares: :math:`E (f(\text{fake}) + 1)^2 + E (f(\text{real}) - 1)^2`.

    Args:
        target: what a fake wants the discriminator to say: 0 as the paper's code has it, 1 in the classic form.
    """

    def __init__(self, target: float = 0.0) -> None:
        self.target = target

    def discriminator(self, fake: Float[Tensor, "n"], real: Float[Tensor, "m"]) -> Tensor:
        """Squared distances from −1 and 1."""
        return (fake + 1).square().mean() + (real - 1).square().mean()

    def generator(self, fake: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """Squared distance from the target."""
        return (fake - self.target).square()


class VanillaLoss(AdversarialLoss):
    r"""Cross-entropy of labels ±1: :math:`-E \log σ(-f(\text{fake})) - E \log σ(f(\text{real}))`."""

    def discriminator(self, fake: Float[Tensor, "n"], real: Float[Tensor, "m"]) -> Tensor:
        """Softplus on both sides."""
        return F.softplus(fake).mean() + F.softplus(-real).mean()

    def generator(self, fake: Float[Tensor, "n"]) -> Float[Tensor, "n"]:
        """``−log σ(f)``: the form that does not saturate."""
        return F.softplus(-fake)


def labels(n: int, m: int, like: Tensor) -> Float[Tensor, "total"]:
    """−1 for n fakes, then 1 for m real samples."""
    return torch.cat([like.new_full((n,), -1.0), like.new_ones(m)])
