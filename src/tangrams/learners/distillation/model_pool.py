"""A pool of networks of different ages, that the synthetic set is judged with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class Member:
    """A network of the pool.

    Attributes:
        network: in eval mode.
        optimizer: of its parameters.
        age: steps since it was made.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    age: int = 0


class ModelPool:
    """Networks in training on the synthetic set, each replaced by a fresh one when it is old [092].

    Args:
        factory: makes a network; it may draw from torch's generator, which is seeded for it and put back.
        size: how many.
        lr: of Adam.
        max_age: steps after which a network is replaced.
        seed: fixes the draws.

    Raises:
        ValueError: if the pool is empty.
    """

    def __init__(
        self, factory: Callable[[], nn.Module], size: int = 30, *, lr: float = 5e-5, max_age: int = 100, seed: int = 0
    ) -> None:
        if size < 1:
            raise ValueError(f"ModelPool needs a size ≥ 1, got {size}")
        self.lr, self.max_age = lr, max_age
        self._factory = factory
        self._generator = torch.Generator().manual_seed(seed)
        self.members = [self.fresh() for _ in range(size)]

    def __len__(self) -> int:
        return len(self.members)

    def draw(self) -> int:
        """The index of a random member."""
        return int(torch.randint(len(self), (), generator=self._generator))

    def fresh(self) -> Member:
        """A new network."""
        network = seeded(self._factory, int(torch.randint(2**31, (), generator=self._generator)))
        return Member(network, torch.optim.Adam(network.parameters(), lr=self.lr))

    def train(self, index: int, images: Tensor, labels: Tensor, steps: int) -> None:
        """Train a member on the synthetic set by ``½ ‖Y − f(X)‖² / (n C)``, and replace it when it is old.

        Args:
            index: which.
            images: X.
            labels: Y.
            steps: how many.
        """
        member = self.members[index]
        member.network.train()
        for _ in range(steps):
            member.optimizer.zero_grad(set_to_none=True)
            with torch.enable_grad():
                (nn.functional.mse_loss(member.network(images), labels) / 2).backward()
            member.optimizer.step()
        member.optimizer.zero_grad(set_to_none=True)
        member.network.eval()
        member.age += steps
        if member.age >= self.max_age:
            self.members[index] = self.fresh()


def seeded(factory: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network in eval mode whose draws are fixed; torch's own generator is left as it was.

    Args:
        factory: makes it.
        seed: of its draws.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch other devices too
        return factory().eval()
