"""How the learners of this room train the direction of a linearised network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tangrams.nn.tangent import LinearizedModule
from tangrams.operators import FeatureMatrix

Penalty = Callable[[Iterable[Tensor]], Tensor]
"""A regulariser of the direction: its tensors → a scalar."""


def norm_penalty(tangents: Iterable[Tensor]) -> Tensor:
    r"""The norm itself, :math:`\sqrt{\|\dot w\|^2 + 10^{-6}}`, as the paper's code has it [004]."""
    return (torch.stack([t.square().sum() for t in tangents]).sum() + 1e-6).sqrt()


def square_penalty(tangents: Iterable[Tensor]) -> Tensor:
    r"""The squared norm, :math:`\|\dot w\|^2`, which makes a square loss a ridge regression."""
    return torch.stack([t.square().sum() for t in tangents]).sum()


@dataclass(frozen=True)
class TangentTraining:
    """Adam on a loss of the linearised network plus a penalty of its direction.

    Attributes:
        loss: ``(logits, targets) -> scalar``.
        penalty: of the direction.
        weight_decay: times the penalty.
        learning_rate: at first.
        milestones: epochs after which the learning rate is a tenth.
        epochs: passes over the samples.
        batch_size: samples per step.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    penalty: Penalty
    weight_decay: float
    learning_rate: float
    milestones: Sequence[int]
    epochs: int
    batch_size: int

    def run(
        self,
        linearized: LinearizedModule,
        x: Tensor | FeatureMatrix,
        targets: Tensor,
        generator: torch.Generator,
    ) -> list[float]:
        """Train the direction from where it is; the mean objective of each epoch.

        Args:
            linearized: the network.
            x: samples, or rows that are read batch by batch.
            targets: one per sample.
            generator: orders the samples.
        """
        tangents = list(linearized.parameters())
        optimizer = torch.optim.Adam(tangents, lr=self.learning_rate, betas=(0.9, 0.999))
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(self.milestones), gamma=0.1)
        curve = []
        for _ in range(self.epochs):
            total = 0.0
            for index in torch.randperm(len(targets), generator=generator).split(self.batch_size):
                logits = linearized(batch_of(x, index, tangents[0]))
                objective = self.loss(logits, targets[index].to(logits.device))
                if self.weight_decay:
                    objective = objective + self.weight_decay * self.penalty(tangents)
                optimizer.zero_grad()
                objective.backward()
                optimizer.step()
                total += float(objective.detach()) * len(index)
            schedule.step()
            curve.append(total / len(targets))
        return curve


def batch_of(x: Tensor | FeatureMatrix, index: Tensor, like: Tensor) -> Tensor:
    """Some samples, in the place and precision of the network."""
    part = x.rows.take(index).dense() if isinstance(x, FeatureMatrix) else x[index.to(x.device)]
    return part.to(like) if part.is_floating_point() else part.to(like.device)
