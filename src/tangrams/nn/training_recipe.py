"""A network's usual training, as data: stochastic gradient descent whose rate falls in steps [052]."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class TrainingRecipe:
    """Momentum SGD with weight decay on every parameter, a linear warm-up and a rate that falls at given epochs.

    Attributes:
        batch_size: samples per step.
        epochs: passes over the data.
        lr: the highest rate.
        drops: epochs at which it falls.
        factor: by what it is multiplied then.
        warmup_epochs: over these it rises from ``lr / steps`` to ``lr``.
        momentum: of the optimiser.
        weight_decay: of the optimiser; BatchNorm's scales and shifts are decayed, too.
    """

    batch_size: int
    epochs: int
    lr: float
    drops: tuple[int, ...]
    factor: float = 0.1
    warmup_epochs: int = 0
    momentum: float = 0.9
    weight_decay: float = 1e-4

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.SGD:
        """The optimiser of these parameters.

        Args:
            parameters: what :func:`tangrams.nn.freeze_except` returns, say.
        """
        return torch.optim.SGD(parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay)

    def scheduler(self, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> torch.optim.lr_scheduler.LambdaLR:
        """The rate's schedule, to be stepped after every step of the optimiser.

        Args:
            optimizer: of :meth:`optimizer`.
            steps_per_epoch: batches in an epoch.

        Raises:
            ValueError: if ``steps_per_epoch < 1``.
        """
        if steps_per_epoch < 1:
            raise ValueError(f"a schedule needs at least one step per epoch, got {steps_per_epoch}")
        warmup = self.warmup_epochs * steps_per_epoch

        def scale(step: int) -> float:
            fallen = self.factor ** sum(step >= drop * steps_per_epoch for drop in self.drops)
            return fallen * min(1.0, (step + 1) / warmup) if warmup else fallen

        return torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


CIFAR_RECIPE = TrainingRecipe(batch_size=128, epochs=160, lr=0.1, drops=(80, 120))
"""Of [052] for CIFAR-10, with random flips and crops."""

IMAGENET_RECIPE = TrainingRecipe(batch_size=1024, epochs=90, lr=0.4, drops=(30, 60, 80), warmup_epochs=5)
"""Of [052] for ImageNet."""
