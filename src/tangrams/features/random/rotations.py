"""Random rotations of groups of directions."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.hadamard import hadamard_transform
from tangrams.operators.sketches.mixing import power_of_two


class Rotation(ABC):
    """A random orthogonal matrix R; a member writes :meth:`size`, :meth:`draw` and :meth:`apply`."""

    is_fast: bool = False
    """Whether applying it costs less than a dense product."""

    @abstractmethod
    def size(self, in_features: int) -> int:
        """The dimension D ≥ d in which it turns; inputs are padded with zeros.

        Args:
            in_features: d.
        """

    @abstractmethod
    def draw(self, size: int, count: int, generator: torch.Generator) -> Tensor:
        """The state of some rotations, ``(count, …)``, float64.

        Args:
            size: D.
            count: how many.
            generator: a CPU generator.
        """

    @abstractmethod
    def apply(self, x: Float[Tensor, "n D"], drawn: Tensor) -> Float[Tensor, "n count D"]:
        """``R x`` by each rotation.

        Args:
            x: vectors of D entries.
            drawn: what :meth:`draw` gave, in the dtype and on the device of ``x``.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class HaarRotation(Rotation):
    """Uniform over all orthogonal matrices: the marginals are exact. O(d³) to draw, O(d²) to apply."""

    def size(self, in_features: int) -> int:
        """D = d."""
        return in_features

    def draw(self, size: int, count: int, generator: torch.Generator) -> Tensor:
        """QR of Gaussian matrices, the signs of R's diagonal moved to Q; without that it is not uniform."""
        Q, R = torch.linalg.qr(torch.randn(count, size, size, generator=generator, dtype=torch.float64))
        return Q * R.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]

    def apply(self, x: Float[Tensor, "n D"], drawn: Tensor) -> Float[Tensor, "n count D"]:
        """Dense products."""
        return torch.einsum("gij,nj->ngi", drawn, x)


class HadamardRotation(Rotation):
    """``(H D₁)(H D₂)(H D₃)`` with random signs D: O(d log d) to apply, no matrix in memory.

    Nearly, not exactly uniform, so that kernels are estimated with a bias that falls as d grows; it pays from about a
    thousand dimensions on. D is the power of two not below d: directions are drawn in D dimensions.
    """

    is_fast = True

    def size(self, in_features: int) -> int:
        """The power of two not below d."""
        return power_of_two(in_features)

    def draw(self, size: int, count: int, generator: torch.Generator) -> Tensor:
        """Three rows of signs each."""
        return torch.randint(0, 2, (count, 3, size), generator=generator).double() * 2 - 1

    def apply(self, x: Float[Tensor, "n D"], drawn: Tensor) -> Float[Tensor, "n count D"]:
        """Three fast transforms."""
        y = x[:, None, :]
        for step in range(3):
            y = hadamard_transform(y * drawn[:, step]) * x.shape[-1] ** -0.5
        return y
