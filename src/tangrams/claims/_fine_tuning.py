"""What the claims about fine-tuning share: old and new classes, networks averaged and ensembled."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tangrams.claims._networks import samples_of
from tangrams.data import Labelled
from tangrams.learners import TangentComposition, TangentRidgeClassifier
from tangrams.nn.tangent import LinearizedModule


def old_and_new(
    data: str | None, samples: int, seed: int, device: str, pool: int = 1
) -> tuple[Labelled, Labelled, Labelled]:
    """Classes 0–4 to pre-train on, classes 5–9 as 0–4 to fine-tune on, and the test samples of the latter.

    Args:
        data: a data set's name; None for scikit-learn's digits.
        samples: training samples of all classes.
        seed: chooses them.
        device: where they go.
        pool: images are averaged over squares of so many pixels.
    """
    both, test = samples_of(data, samples, seed)

    def part(of: Labelled, new: bool) -> Labelled:
        chosen = (of.targets >= 5) == new
        return Labelled(
            nn.functional.avg_pool2d(of.inputs[chosen], pool).to(device), (of.targets[chosen] - 5 * new).to(device)
        )

    return part(both, False), part(both, True), part(test, True)


def take(part: Labelled, index: Tensor) -> Labelled:
    """Some of the samples."""
    return Labelled(part.inputs[index], part.targets[index])


def composed(model: TangentRidgeClassifier, pieces: list[Labelled]) -> LinearizedModule:
    """One component per piece, and their mean."""
    total = None
    for i, piece in enumerate(pieces):
        fitted = model.fit(piece.inputs, piece.targets)
        total = total or TangentComposition(fitted)
        total.add(str(i), fitted.tangent_)
    assert total is not None
    return total.as_module()


def average_of_weights(networks: list[nn.Sequential]) -> nn.Sequential:
    """One network with the mean of the weights and running statistics."""
    soup = copy.deepcopy(networks[0])
    states = [network.state_dict() for network in networks]
    soup.load_state_dict({key: torch.stack([s[key].double() for s in states]).mean(0) for key in states[0]})
    return soup.eval()


class MeanOfLogits(nn.Module):
    """An ensemble."""

    def __init__(self, networks: list[nn.Sequential]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, C)``."""
        return torch.stack([network(x) for network in self.networks]).mean(0)


def accuracy(predict: Callable[[Tensor], Tensor], part: Labelled) -> float:
    """The share of samples whose class has the largest logit."""
    with torch.no_grad():
        return float((predict(part.inputs).argmax(1) == part.targets).double().mean())


def cpu_seconds(run: Callable[[], Any]) -> float:
    """The median of five, without gradients."""
    taken = []
    with torch.no_grad():
        for _ in range(5):
            start = time.thread_time()
            run()
            taken.append(time.thread_time() - start)
    return float(np.median(taken))
