"""The joint law of random weight vectors: how the rows of W, each N(0, I), are coupled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tangrams.features.random.conformity import (
    Lengths,
    cosine_conformity_of_lengths,
    equiangular_cosine_conformity,
    equiangular_log_conformity,
    log_conformity_of_lengths,
    pair_lengths,
)
from tangrams.features.random.rotations import HaarRotation, Rotation
from tangrams.features.random.simplex import oppose, simplex_matmul
from tangrams.operators.sketches.base import block_generator

_IID_GROUP = 256

_PAIRS = 1 << 21
"""Ordered pairs whose mean stands for an expectation that has no closed form."""

Drawn = tuple[Tensor, ...]
"""What a coupling drew for some groups of vectors: tensors whose first axis is the group."""


class Coupling(ABC):
    """How weight vectors with the marginal law N(0, I) are drawn together.

    Vectors come in groups; those of different groups are independent. A member writes :meth:`group_size`,
    :meth:`draw`, :meth:`apply`, and what exact variances need.
    """

    is_fast: bool = False
    """Whether :meth:`apply` costs less than a product with the dense vectors."""

    @abstractmethod
    def group_size(self, in_features: int) -> int:
        """How many vectors are drawn together.

        Args:
            in_features: d, their dimension.
        """

    @abstractmethod
    def draw(self, in_features: int, count: int, generator: torch.Generator) -> Drawn:
        """Some groups of vectors, in float64.

        Args:
            in_features: d, their dimension.
            count: how many groups.
            generator: a CPU generator.
        """

    def prepare(self, drawn: Drawn) -> Drawn:
        """What :meth:`apply` needs, worked out from all draws at once.

        Args:
            drawn: what :meth:`draw` gave, of any number of groups.
        """
        return drawn

    @abstractmethod
    def apply(self, x: Float[Tensor, "n d"], drawn: Drawn) -> Float[Tensor, "n count group"]:
        """Inner products ``w · x`` with every drawn vector.

        Args:
            x: samples.
            drawn: what :meth:`prepare` gave, in the dtype and on the device of ``x``.
        """

    def dense(self, in_features: int, drawn: Drawn) -> Float[Tensor, "rows d"]:
        """The drawn vectors themselves, group after group.

        Args:
            in_features: d.
            drawn: what :meth:`prepare` gave.
        """
        basis = torch.eye(in_features, dtype=drawn[0].dtype, device=drawn[0].device)
        return self.apply(basis, drawn).flatten(1).mT

    @abstractmethod
    def coupled_pairs(self, num_vectors: int, in_features: int) -> int:
        """How many ordered pairs of different vectors depend on one another.

        Args:
            num_vectors: m.
            in_features: d.
        """

    @abstractmethod
    def log_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Log E exp((w + w′)·v) over coupled pairs, where ``‖v‖²`` is given: the RF-conformity ρ [083].

        Args:
            in_features: d.
            square: ‖v‖², float64.
        """

    @abstractmethod
    def cosine_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """E cos(w·v) cos(w′·v) over coupled pairs, where ``‖v‖²`` is given.

        Args:
            in_features: d.
            square: ‖v‖², float64.
        """

    def describe(self) -> dict[str, Any]:
        """What this coupling is, as JSON data."""
        return {"class": type(self).__name__}

    def __repr__(self) -> str:
        options = {name: value for name, value in self.describe().items() if name != "class"}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in options.items())})"


class IIDCoupling(Coupling):
    """Independent vectors, the plain Monte Carlo choice."""

    def group_size(self, in_features: int) -> int:
        """How many are drawn from one generator; they are independent all the same."""
        return _IID_GROUP

    def draw(self, in_features: int, count: int, generator: torch.Generator) -> Drawn:
        """Standard normal entries; the stream is in float32."""
        return (torch.randn(count, _IID_GROUP, in_features, generator=generator, dtype=torch.float32),)

    def apply(self, x: Float[Tensor, "n d"], drawn: Drawn) -> Float[Tensor, "n count group"]:
        """Dense products."""
        return torch.einsum("gij,nj->ngi", drawn[0], x)

    def dense(self, in_features: int, drawn: Drawn) -> Float[Tensor, "rows d"]:
        """What was drawn."""
        return drawn[0].flatten(0, 1)

    def coupled_pairs(self, num_vectors: int, in_features: int) -> int:
        """None."""
        return 0

    def log_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """‖v‖², the logarithm of two means multiplied."""
        return square

    def cosine_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """exp(−‖v‖²)."""
        return torch.exp(-square)


class RotatedCoupling(Coupling):
    """Directions in a fixed arrangement, turned at random, with independent χ lengths: the marginals are N(0, I).

    Args:
        rotation: how they are turned.
    """

    def __init__(self, rotation: Rotation | None = None) -> None:
        self.rotation = rotation or HaarRotation()

    @property
    def is_fast(self) -> bool:  # type: ignore[override]
        """The rotation's."""
        return self.rotation.is_fast

    @abstractmethod
    def arrange(self, lengths: Float[Tensor, "count D"]) -> Tensor:
        """What :meth:`place` needs of each group, from its drawn lengths.

        Args:
            lengths: of the vectors.
        """

    @abstractmethod
    def place(self, y: Float[Tensor, "n count D"], arrangement: Tensor) -> Float[Tensor, "n count D"]:
        """Inner products of rotated samples with the arranged vectors.

        Args:
            y: ``R x``.
            arrangement: what :meth:`arrange` gave.
        """

    def group_size(self, in_features: int) -> int:
        """D, the dimension in which directions are turned."""
        return self.rotation.size(in_features)

    def draw(self, in_features: int, count: int, generator: torch.Generator) -> Drawn:
        """A rotation and the lengths of each group."""
        size = self.rotation.size(in_features)
        return self.rotation.draw(size, count, generator), draw_lengths(size, count, generator)

    def prepare(self, drawn: Drawn) -> Drawn:
        """The rotations, and what :meth:`arrange` makes of the lengths."""
        return drawn[0], self.arrange(drawn[1])

    def apply(self, x: Float[Tensor, "n d"], drawn: Drawn) -> Float[Tensor, "n count group"]:
        """Turn the samples, then place them."""
        turned, arrangement = drawn
        padded = F.pad(x, (0, self.rotation.size(x.shape[1]) - x.shape[1]))
        return self.place(self.rotation.apply(padded, turned), arrangement)

    def coupled_pairs(self, num_vectors: int, in_features: int) -> int:
        """All pairs within a group, of which the last may be cut."""
        group = self.group_size(in_features)
        whole, rest = divmod(num_vectors, group)
        return whole * group * (group - 1) + rest * (rest - 1)

    def describe(self) -> dict[str, Any]:
        """Class and rotation."""
        return {**super().describe(), "rotation": repr(self.rotation)}


class EquiangularCoupling(RotatedCoupling):
    """All pairs of directions at one angle, whatever the lengths. A member writes :meth:`cosine` too."""

    @abstractmethod
    def cosine(self, size: int) -> float:
        """The cosine between two directions of a group.

        Args:
            size: D.
        """

    def arrange(self, lengths: Float[Tensor, "count D"]) -> Tensor:
        """The lengths themselves."""
        return lengths

    def log_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Exact, by :func:`~tangrams.features.random.conformity.equiangular_log_conformity`."""
        size = self.group_size(in_features)
        return equiangular_log_conformity(size, self.cosine(size), square)

    def cosine_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Exact, by :func:`~tangrams.features.random.conformity.equiangular_cosine_conformity`."""
        size = self.group_size(in_features)
        return equiangular_cosine_conformity(size, self.cosine(size), square)


class OrthogonalCoupling(EquiangularCoupling):
    """Directions at right angles. Yu et al. (2016).

    Args:
        rotation: how they are turned; uniformly by default.
    """

    def cosine(self, size: int) -> float:
        """Zero."""
        return 0.0

    def place(self, y: Float[Tensor, "n count D"], arrangement: Tensor) -> Float[Tensor, "n count D"]:
        """The rotated samples, times the lengths."""
        return y * arrangement


class SimplexCoupling(EquiangularCoupling):
    """Directions to the corners of a regular simplex, all pairs at the same obtuse angle [083].

    For positive features the smallest mean squared error of any coupling that does not look at the lengths.

    Args:
        rotation: how they are turned; uniformly by default.
    """

    def group_size(self, in_features: int) -> int:
        """D, the dimension in which directions are turned.

        Raises:
            ValueError: if there are fewer than two dimensions.
        """
        if in_features < 2:
            raise ValueError(f"{type(self).__name__} needs in_features ≥ 2, got {in_features}: one has no simplex")
        return super().group_size(in_features)

    def cosine(self, size: int) -> float:
        """−1 / (D − 1)."""
        return -1.0 / (size - 1)

    def place(self, y: Float[Tensor, "n count D"], arrangement: Tensor) -> Float[Tensor, "n count D"]:
        """The simplex of the rotated samples, in O(D), times the lengths."""
        return simplex_matmul(y) * arrangement


class SimplexPlusCoupling(RotatedCoupling):
    """Directions that oppose the sum of the others, given the lengths: SimRF+ [083].

    From the simplex by :func:`~tangrams.features.random.simplex.oppose`, O(sweeps · d²) a group. Of all couplings the
    smallest mean squared error asymptotically.

    Args:
        rotation: how they are turned; uniformly by default.
        sweeps: the most turns of all vectors.

    Raises:
        ValueError: if ``sweeps < 1``.
    """

    def __init__(self, rotation: Rotation | None = None, *, sweeps: int = 50) -> None:
        super().__init__(rotation)
        if sweeps < 1:
            raise ValueError(f"SimplexPlusCoupling needs sweeps ≥ 1, got {sweeps}")
        self.sweeps = int(sweeps)

    def group_size(self, in_features: int) -> int:
        """D, the dimension in which directions are turned.

        Raises:
            ValueError: if there are fewer than two dimensions.
        """
        if in_features < 2:
            raise ValueError(f"{type(self).__name__} needs in_features ≥ 2, got {in_features}: one has no simplex")
        return super().group_size(in_features)

    def arrange(self, lengths: Float[Tensor, "count D"]) -> Tensor:
        """The vectors before they are turned, ``(count, D, D)``."""
        return oppose(lengths[:, :, None] * _corners(lengths.shape[-1]), self.sweeps)

    def place(self, y: Float[Tensor, "n count D"], arrangement: Tensor) -> Float[Tensor, "n count D"]:
        """Dense products with the arranged vectors."""
        return torch.einsum("gij,ngj->ngi", arrangement, y)

    def log_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The simplex's, and what turning changes in the mean over a million drawn pairs: it has no closed form."""
        size = self.group_size(in_features)
        turned, simplex = (log_conformity_of_lengths(law[0], size, square) for law in _lengths(size, self.sweeps))
        exact = equiangular_log_conformity(size, -1 / (size - 1), square)
        return square + torch.log((exact - square).exp() + (turned - square).exp() - (simplex - square).exp())

    def cosine_conformity(self, in_features: int, square: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The simplex's, and what turning changes in the mean over a million drawn pairs: it has no closed form."""
        size = self.group_size(in_features)
        turned, simplex = (cosine_conformity_of_lengths(law, size, square) for law in _lengths(size, self.sweeps))
        return equiangular_cosine_conformity(size, -1 / (size - 1), square) + turned - simplex

    def describe(self) -> dict[str, Any]:
        """Class, rotation and sweeps."""
        return {**super().describe(), "sweeps": self.sweeps}


@lru_cache
def _lengths(size: int, sweeps: int) -> list[tuple[Lengths, Lengths]]:
    """Laws of ‖w ± w′‖² in groups that were turned, and of the same lengths in the corners of the simplex."""
    count = max(1, _PAIRS // (size * (size - 1)))
    simplex = draw_lengths(size, count, block_generator(0, -1))[:, :, None] * _corners(size)
    return [pair_lengths(oppose(simplex, sweeps)), pair_lengths(simplex)]


def draw_lengths(size: int, count: int, generator: torch.Generator) -> Float[Tensor, "count D"]:
    """Lengths of Gaussian vectors: χ with D degrees of freedom.

    Args:
        size: D.
        count: groups of D vectors.
        generator: a CPU generator.
    """
    half = torch.full((count, size), size / 2, dtype=torch.float64)
    return (2 * torch._standard_gamma(half, generator)).sqrt()


def _corners(size: int) -> Float[Tensor, "D D"]:
    """The directions of a regular simplex, in rows."""
    return simplex_matmul(torch.eye(size, dtype=torch.float64)).mT
