"""The role of a sketch: a random matrix S, (k, p), with E SᵀS = I, that is never held in memory."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK = 1 << 16
"""Columns per block of the random stream: part of the definition of every sketch."""


@dataclass(frozen=True)
class Column:
    """A named run of feature columns, such as one parameter of a network.

    Attributes:
        name: the run's name; for a parameter the one in ``model.named_parameters()``.
        shape: the shape that the run flattens.
        start: first column.
        stop: one past the last column.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


def block_generator(seed: int, block: int) -> torch.Generator:
    """The CPU generator of one block of :data:`BLOCK` columns.

    Everything random over feature columns draws from these, so that it is the same for any chunking, device and
    number of threads.
    """
    generator = torch.Generator()
    generator.manual_seed((seed * 0x9E3779B97F4A7C15 + block * 0xD1B54A32D192ED03) & 0x7FFF_FFFF_FFFF_FFFF)
    return generator


class Sketch(ABC):
    """A random matrix S of shape ``(k, p)`` with ``E SᵀS = I``; features are ``Φ Sᵀ``.

    A sketch is made unbound, ``CountSketch(2048, seed=0)``; :meth:`bind` gives it the columns it meets. A member
    writes :meth:`accumulate`. The whole state is ``(class, k, seed, columns)``.

    Args:
        num_features: k, the number of sketched features.
        seed: fixes every draw.

    Raises:
        ValueError: if ``num_features < 1``.
    """

    def __init__(self, num_features: int, *, seed: int = 0) -> None:
        if num_features < 1:
            raise ValueError(f"{type(self).__name__} needs num_features ≥ 1, got {num_features}")
        self.num_features = int(num_features)
        self.seed = int(seed)
        self.columns: tuple[Column, ...] | None = None

    @property
    def in_features(self) -> int:
        """p, the number of columns it is bound to."""
        if self.columns is None:
            raise ValueError(f"{type(self).__name__} is not bound: use phi >> sketch, or sketch.bind(phi.columns)")
        return self.columns[-1].stop if self.columns else 0

    def bind(self, columns: Sequence[Column] | int) -> Sketch:
        """A copy over the given columns, or over that many nameless ones."""
        bound = copy.copy(self)
        if isinstance(columns, int):
            columns = (Column("features", (columns,), 0, columns),)
        bound.columns = tuple(columns)
        return bound

    @abstractmethod
    def accumulate(self, block: Tensor, start: int, out: Tensor) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``: block ``(n, width)``, out ``(n, k)``."""

    def project(self, features: Tensor) -> Tensor:
        """``Φ Sᵀ`` of dense rows: ``(n, p)`` → ``(n, k)``."""
        if features.shape[-1] != self.in_features:
            raise ValueError(
                f"{type(self).__name__} is bound to {self.in_features} columns, got rows of {features.shape[-1]}"
            )
        out = features.new_zeros(features.shape[0], self.num_features)
        self.accumulate(features, 0, out)
        return out

    def describe(self) -> dict[str, Any]:
        """What this sketch is, as JSON data."""
        return {"class": type(self).__name__, "num_features": self.num_features, "seed": self.seed}
