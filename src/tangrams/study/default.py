"""The embedded default: a small network that has memorised handwritten digits, planted mistakes included."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tangrams.data.digits import PlantedSplit, digits
from tangrams.features.inputs import as_inputs
from tangrams.study.material import Truth
from tangrams.study.progress import Advance
from tangrams.study.training import train_classifier


class SmallCNN(nn.Sequential):
    """Two convolutions (16, 32), a pooling, two dense layers (64, classes): 38 282 parameters on 8 × 8 digits.

    The global random state is left as it was.

    Args:
        channels: of the images.
        side: their height and width.
        num_classes: outputs.
        seed: fixes the weights.

    Shape:
        ``(n, channels, side, side)`` → logits ``(n, num_classes)``
    """

    def __init__(self, *, channels: int = 1, side: int = 8, num_classes: int = 10, seed: int = 0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch other devices too
            super().__init__(
                nn.Conv2d(channels, 16, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32 * (side // 2) ** 2, 64),
                nn.ReLU(),
                nn.Linear(64, num_classes),
            )


@dataclass(frozen=True, eq=False)
class TrainedDefault:
    """A network together with all that a study of it can use.

    Attributes:
        model: trained, in eval mode.
        initial_weights: before training.
        data: the digits and the truth about them.
        seed: fixes split, mistakes, weights and order.
        kind: how the wrong labels were drawn.
    """

    model: nn.Module
    initial_weights: dict[str, Tensor]
    data: PlantedSplit
    seed: int
    kind: Literal["uniform", "confusable"]

    @property
    def truth(self) -> Truth:
        """What was planted."""
        train = self.data.train
        return Truth(train.wrong, train.original_labels, train.duplicate_pairs, self.kind)

    def retrain(self, index: Tensor) -> nn.Module:
        """A fresh network, trained in the same way from the same weights on the training samples at ``index``."""
        return self.retrain_from(self.initial_weights, index, self.seed)

    def retrain_from(self, weights: Mapping[str, Tensor], index: Tensor, seed: int) -> nn.Module:
        """The same from other weights and in another order of the samples."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(dict(weights))
        train = self.data.train
        return train_classifier(model, as_inputs(train.inputs[index]), train.labels[index], seed=seed)


def trained_default(
    seed: int = 0,
    *,
    confusable: Mapping[int, int | Sequence[int]] | None = None,
    advance: Advance | None = None,
) -> TrainedDefault:
    """Plant mistakes in the digits and train the small network until it has memorised them.

    Args:
        seed: fixes everything.
        confusable: class → what it is mistaken for; None: wrong labels of any other class.
        advance: told how far training has come.
    """
    data = digits(confusable=confusable, seed=seed)
    model = SmallCNN(seed=seed)
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    train_classifier(model, as_inputs(data.train.inputs), data.train.labels, seed=seed, advance=advance)
    return TrainedDefault(model, initial, data, seed, "uniform" if confusable is None else "confusable")
