"""Which member of a group stands for it [016]."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tangrams.operators import block_generator


class Representatives(ABC):
    """Chooses a point of each group."""

    @abstractmethod
    def __call__(self, index: Int[Tensor, "g p"], error: Float[Tensor, "n"]) -> Int[Tensor, "g"]:
        """A point of each group.

        Args:
            index: members of the groups, −1 where one is missing.
            error: total absolute error at each point, up to a factor; of another loss, its gradient there.
        """


class LargestError(Representatives):
    """The member with the largest error in its own group; the authors' script gives each group the places of all."""

    def __call__(self, index: Int[Tensor, "g p"], error: Float[Tensor, "n"]) -> Int[Tensor, "g"]:
        """The member with the largest error."""
        errors = torch.where(index >= 0, error[index.clamp_min(0)], -1.0)
        return _at(index, errors.argmax(1))


class Centre(Representatives):
    """The member in the middle of the list."""

    def __call__(self, index: Int[Tensor, "g p"], error: Float[Tensor, "n"]) -> Int[Tensor, "g"]:
        """The middle member of those that are present."""
        order = (index < 0).to(torch.int8).argsort(dim=1, stable=True)  # those present first
        middle = (index >= 0).sum(1, keepdim=True) // 2
        return _at(index, order.gather(1, middle.clamp_max(index.shape[1] - 1))[:, 0])


class RandomMember(Representatives):
    """A member drawn anew each time.

    Args:
        seed: fixes the draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = int(seed)
        self.draws = 0

    def __call__(self, index: Int[Tensor, "g p"], error: Float[Tensor, "n"]) -> Int[Tensor, "g"]:
        """One of the members that are present, each as likely."""
        generator = block_generator(self.seed, self.draws)
        priority = torch.rand(index.shape, generator=generator, dtype=torch.float32).to(index.device)
        self.draws += 1
        return _at(index, torch.where(index >= 0, priority, -1.0).argmax(1))


def _at(index: Tensor, place: Tensor) -> Tensor:
    return index.gather(1, place[:, None])[:, 0]
