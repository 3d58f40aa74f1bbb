"""Known mistakes in labelled samples, so that finding them can be scored: wrong labels, exact duplicates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import TensorDataset

from tangrams.data.labelled import Labelled


@dataclass(frozen=True)
class Planted:
    """Samples with planted mistakes, and the truth about each.

    The copies stand behind the n original samples, so that the first n rows keep their order.

    Attributes:
        inputs: ``(n + copies, …)``.
        labels: the labels as given, some of them wrong: ``(n + copies,)``, int64.
        original_labels: the labels before planting.
        wrong: where the given label was planted.
        duplicate_of: for a planted copy the row that it copies, else −1.
    """

    inputs: Tensor
    labels: Int[Tensor, "n"]
    original_labels: Int[Tensor, "n"]
    wrong: Bool[Tensor, "n"]
    duplicate_of: Int[Tensor, "n"]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def duplicate(self) -> Bool[Tensor, "n"]:
        """Where the row is a planted copy of another."""
        return self.duplicate_of >= 0

    @property
    def duplicate_pairs(self) -> Int[Tensor, "copies 2"]:
        """The planted pairs (original, copy)."""
        (copies,) = torch.nonzero(self.duplicate, as_tuple=True)
        return torch.stack([self.duplicate_of[copies], copies], dim=1)

    def labelled(self) -> Labelled:
        """Inputs with the labels as given."""
        return Labelled(self.inputs, self.labels)

    def dataset(self) -> TensorDataset:
        """The same as a dataset of ``(x, y)`` pairs, in order."""
        return TensorDataset(self.inputs, self.labels)


def plant(
    inputs: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    label_noise: float = 0.05,
    duplicates: int = 30,
    confusable: Mapping[int, int | Sequence[int]] | None = None,
    seed: int = 0,
) -> Planted:
    """Plant wrong labels and exact duplicates into labelled samples.

    ``round(label_noise * n)`` samples drawn without replacement get another class: any other class with
    equal chance, or one of those that ``confusable`` names for their class. Then ``duplicates`` distinct
    samples whose labels were left alone are copied, label included, behind the others: a wrong label never
    gets a copy of its own to vouch for it. Labels and copies draw from streams of their own: asking for
    more copies leaves the wrong labels where they were.

    Args:
        inputs: ``(n, …)``; copied, never changed.
        labels: class indices ``(n,)``.
        label_noise: the share of samples that get a wrong label, in [0, 1).
        duplicates: how many exact copies to add.
        confusable: class → the class or classes it is mistaken for; None: any other class.
        seed: fixes every draw.

    Raises:
        ValueError: on lengths that differ, labels that are not class indices, a share outside [0, 1), more
            copies than samples with an untouched label, one class only, or a ``confusable`` that leaves a
            class out or maps it to itself.
    """
    x = torch.as_tensor(inputs).clone()
    y = torch.as_tensor(labels)
    _check(x, y, label_noise, duplicates)
    y = y.to(torch.int64, copy=True)
    n = len(y)
    choices = _choices(y, confusable) if label_noise else {}

    rng = np.random.default_rng([seed, 0])
    flipped = np.sort(rng.permutation(n)[: round(label_noise * n)])
    given = y.clone()
    for i in flipped:
        others = choices[int(y[i])]
        given[i] = others[int(rng.integers(len(others)))]
    wrong = torch.zeros(n, dtype=torch.bool)
    wrong[torch.from_numpy(flipped)] = True

    order = torch.from_numpy(np.random.default_rng([seed, 1]).permutation(n))
    candidates = order[~wrong[order]]
    if duplicates > len(candidates):
        raise ValueError(
            f"plant cannot copy {duplicates} samples: only {len(candidates)} of {n} keep their label; "
            "ask for fewer duplicates or less label_noise"
        )
    source = candidates[:duplicates]
    rows = torch.cat([torch.arange(n), source])
    return Planted(
        inputs=x[rows],
        labels=given[rows],
        original_labels=y[rows],
        wrong=wrong[rows],
        duplicate_of=torch.cat([torch.full((n,), -1), source]),
    )


def nearest_classes(inputs: Tensor | np.ndarray, labels: Tensor | np.ndarray) -> dict[int, int]:
    """For every class the one whose mean input is closest: ready-made ``confusable`` for :func:`plant`.

    Args:
        inputs: ``(n, …)``.
        labels: class indices ``(n,)``.

    Raises:
        ValueError: on lengths that differ, labels that are not class indices, or one class only.
    """
    x = torch.as_tensor(inputs)
    y = torch.as_tensor(labels)
    _check(x, y, 0.0, 0)
    classes = torch.unique(y).tolist()
    if len(classes) < 2:
        raise ValueError("nearest_classes needs at least two classes, got one")
    means = torch.stack([x[y == c].to(torch.float64).flatten(1).mean(0) for c in classes])
    distance = torch.cdist(means, means)
    distance.fill_diagonal_(float("inf"))
    return {c: classes[int(j)] for c, j in zip(classes, distance.argmin(1), strict=True)}


def _check(x: Tensor, y: Tensor, label_noise: float, duplicates: int) -> None:
    if y.ndim != 1 or x.ndim < 1 or len(x) != len(y):
        raise ValueError(
            f"plant expects inputs (n, …) and labels (n,), got {tuple(x.shape)} and {tuple(y.shape)}: "
            "a label for every sample"
        )
    if len(y) == 0:
        raise ValueError("plant got no samples")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise ValueError(f"plant expects class indices, got labels of {y.dtype}: cast them to int64")
    if int(y.min()) < 0:
        raise ValueError(f"plant expects class indices ≥ 0, got {int(y.min())} at sample {int(y.argmin())}")
    if not 0 <= label_noise < 1:
        raise ValueError(f"plant expects label_noise in [0, 1), got {label_noise}")
    if duplicates < 0:
        raise ValueError(f"plant expects duplicates ≥ 0, got {duplicates}")


def _choices(y: Tensor, confusable: Mapping[int, int | Sequence[int]] | None) -> dict[int, list[int]]:
    """Class → the classes its wrong labels are drawn from."""
    classes = torch.unique(y).tolist()
    if confusable is None:
        if len(classes) < 2:
            raise ValueError("plant needs at least two classes to plant a wrong label, got one")
        return {c: [other for other in classes if other != c] for c in classes}
    choices = {}
    for c in classes:
        others = confusable.get(c, ())
        others = [int(others)] if isinstance(others, int | np.integer) else [int(o) for o in others]
        if not others or c in others:
            raise ValueError(f"plant: confusable must name another class for class {c}, got {others}")
        choices[c] = others
    return choices
