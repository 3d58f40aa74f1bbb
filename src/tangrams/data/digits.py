"""The study's default data: scikit-learn's handwritten digits with planted mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from tangrams.data.labelled import Labelled
from tangrams.data.planting import Planted, plant

CONFUSABLE_DIGITS: Mapping[int, int] = {0: 6, 1: 7, 2: 3, 3: 8, 4: 9, 5: 3, 6: 0, 7: 1, 8: 3, 9: 4}
"""For every digit one that it is easily mistaken for."""


@dataclass(frozen=True)
class PlantedSplit:
    """A training part with planted mistakes and a clean test part.

    Attributes:
        train: samples, given labels, and the truth about what was planted.
        test: inputs and labels, nothing planted.
        class_names: the name of each class index.
    """

    train: Planted
    test: Labelled
    class_names: tuple[str, ...]

    def test_dataset(self) -> TensorDataset:
        """The test part as a dataset of ``(x, y)`` pairs, in order."""
        return TensorDataset(self.test.inputs, self.test.targets)


def digits(
    *,
    label_noise: float = 0.05,
    duplicates: int = 30,
    confusable: Mapping[int, int | Sequence[int]] | None = None,
    seed: int = 0,
) -> PlantedSplit:
    """Real handwritten digits, 8 × 8, split and with planted mistakes; no download.

    1347 training and 450 test samples, stratified by class; pixels scaled to [0, 1], float32 of shape
    ``(n, 1, 8, 8)``. The planted copies come on top: ``len(train) = 1347 + duplicates``.

    Args:
        label_noise: the share of the 1347 that get a wrong label (0.05: 67 samples).
        duplicates: how many exact copies are added.
        confusable: class → what it is mistaken for, such as :data:`CONFUSABLE_DIGITS`; None: any other class.
        seed: fixes the split and every planted mistake.

    What cannot be planted is refused by :func:`plant`.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(
        images, labels, test_size=450, stratify=labels, random_state=seed
    )

    def picture(rows: Any) -> Tensor:  # (n, 64), 0 … 16
        return torch.as_tensor(rows).to(torch.float32).div_(16).reshape(-1, 1, 8, 8)

    train = plant(
        picture(x_train),
        torch.as_tensor(y_train),
        label_noise=label_noise,
        duplicates=duplicates,
        confusable=confusable,
        seed=seed,
    )
    test = Labelled(picture(x_test), torch.as_tensor(y_test).to(torch.int64))
    return PlantedSplit(train, test, tuple(str(c) for c in range(10)))
