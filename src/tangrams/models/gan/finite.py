"""A discriminator of finite width, trained by gradient descent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tangrams.models.gan.base import Discriminator
from tangrams.models.gan.losses import AdversarialLoss
from tangrams.nn.antisymmetric import Antisymmetric


class FiniteDiscriminator(Discriminator):
    """A network of finite width that starts at zero and takes steps of gradient descent at each fit [042].

    With ``reset`` every fit starts anew, as those of infinite width do; steps × rate is then the time t.

    Args:
        make_network: makes a freshly drawn network, one output per sample; it is made antisymmetric.
        loss: the game.
        steps: of gradient descent per fit.
        learning_rate: of each step.
        reset: whether each fit starts from a new draw instead of where the last one ended.

    Raises:
        ValueError: if ``steps < 1`` or the rate is not positive.
    """

    def __init__(
        self,
        make_network: Callable[[], nn.Module],
        loss: AdversarialLoss,
        *,
        steps: int,
        learning_rate: float,
        reset: bool = False,
    ) -> None:
        if steps < 1 or not learning_rate > 0:
            raise ValueError(f"FiniteDiscriminator needs steps ≥ 1 and a rate > 0, got {steps} and {learning_rate}")
        self.make_network = make_network
        self.loss = loss
        self.steps, self.learning_rate, self.reset = steps, learning_rate, reset
        self.network: Antisymmetric | None = None

    def fit(self, fake: Tensor, real: Tensor) -> FiniteDiscriminator:
        """Take the steps, each on all samples."""
        if self.network is None or self.reset:
            self.network = Antisymmetric(self.make_network()).to(fake)
        optimizer = torch.optim.SGD(self.network.parameters(), lr=self.learning_rate)
        both = torch.cat([fake.detach(), real.detach()])
        with torch.enable_grad():
            for _ in range(self.steps):
                out = self.network(both)[:, 0]
                optimizer.zero_grad()
                self.loss.discriminator(out[: len(fake)], out[len(fake) :]).backward()
                optimizer.step()
        return self

    def __call__(self, x: Tensor) -> Float[Tensor, "b"]:
        """The function at some points.

        Raises:
            RuntimeError: before :meth:`fit`.
        """
        if self.network is None:
            raise RuntimeError("FiniteDiscriminator is not fitted: call fit(fake, real) first")
        return self.network(x)[:, 0]
