"""The role of random features that estimate a kernel without bias: coupled directions and an exact variance."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tangrams.features.random.columnwise import ColumnwiseFeatures, as_vectors
from tangrams.features.random.couplings import Coupling
from tangrams.features.random.stream import WeightStream


class KernelFeatures(ColumnwiseFeatures):
    """Random features over m directions with E ⟨φ(x), φ(y)⟩ = k(x, y).

    A member writes :meth:`panel`, :meth:`kernel`, :meth:`variance` and ``default_coupling``.

    Args:
        in_features: d, entries of a sample, whatever its shape.
        num_features: the number of columns.
        coupling: the joint law of the directions; the member's default if absent.
        lengthscale: ℓ, what samples are divided by.
        seed: fixes every draw.

    Raises:
        ValueError: if a size is below one, ``lengthscale <= 0``, or the columns do not divide among directions.
    """

    columns_per_direction: int = 1

    default_coupling: type[Coupling]

    def __init__(
        self,
        in_features: int,
        num_features: int,
        *,
        coupling: Coupling | None = None,
        lengthscale: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if in_features < 1 or num_features < 1:
            raise ValueError(f"{who} needs sizes ≥ 1, got {in_features} and {num_features}")
        if num_features % self.columns_per_direction:
            raise ValueError(f"{who} has {self.columns_per_direction} columns a direction, got {num_features} columns")
        if not lengthscale > 0:
            raise ValueError(f"{who} needs lengthscale > 0, got {lengthscale}")
        self.in_features, self._num_features = int(in_features), int(num_features)
        self.coupling = coupling or self.default_coupling()
        self.lengthscale, self.seed = float(lengthscale), int(seed)
        self.num_directions = self._num_features // self.columns_per_direction
        self._stream = WeightStream(self.in_features, self.num_directions, self.coupling, self.seed)

    @property
    def num_features(self) -> int:
        """The number of columns."""
        return self._num_features

    @property
    def panel_unit(self) -> int:
        """Columns of the directions that are drawn together."""
        return self._stream.strip * self.columns_per_direction

    def directions(self, like: Tensor) -> Float[Tensor, "m d"]:
        """All weight vectors, in the dtype and on the device of ``like``: what samples over ℓ are multiplied with.

        Args:
            like: gives dtype and device.
        """
        return self._stream.rows(0, self.num_directions, like).W.clone()  # what is kept stays as it was drawn

    @abstractmethod
    def kernel(self, x: Tensor, y: Tensor) -> Float[Tensor, "n m"]:
        """The kernel that is estimated.

        Args:
            x: n samples.
            y: m samples.
        """

    @abstractmethod
    def variance(self, x: Tensor, y: Tensor) -> Float64[Tensor, "n"]:
        """Var ⟨φ(x_i), φ(y_i)⟩ over draws, exactly: the mean squared error, as there is no bias.

        Exact but for :class:`~tangrams.features.random.SimplexPlusCoupling`, where an expectation is a mean over drawn
        pairs, and for fast rotations, which are not quite uniform.

        Args:
            x: n samples.
            y: n samples.
        """

    def describe(self) -> dict[str, Any]:
        """Class, sizes, coupling, length scale and seed."""
        return {
            "class": type(self).__name__,
            "in_features": self.in_features,
            "num_features": self.num_features,
            "coupling": self.coupling.describe(),
            "lengthscale": self.lengthscale,
            "seed": self.seed,
        }

    def extra_repr(self) -> str:
        """Sizes, coupling and seed."""
        return f"{self.in_features}, {self.num_features}, {self.coupling!r}, seed={self.seed}"

    def scaled(self, x: Tensor, name: str = "x") -> Tensor:
        """Samples as vectors over ℓ.

        Args:
            x: samples.
            name: of the argument, for a refusal.
        """
        return as_vectors(x, self.in_features, type(self).__name__, name) / self.lengthscale


def gaussian(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """``exp(−‖x_i − y_j‖² / 2)``, from differences: the inner-product trick loses close ones.

    Args:
        x: n samples.
        y: m samples.
    """
    return torch.exp(-torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / 2)
