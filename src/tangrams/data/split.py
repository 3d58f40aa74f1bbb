"""Data that come in a training and a test part."""

from __future__ import annotations

from dataclasses import dataclass

from tangrams.data.labelled import Labelled


@dataclass(frozen=True)
class Split:
    """A training and a test part.

    Attributes:
        train: inputs and targets.
        test: inputs and targets.
        class_names: the name of each class index; empty for regression.
    """

    train: Labelled
    test: Labelled
    class_names: tuple[str, ...] = ()
