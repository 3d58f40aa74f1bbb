"""The joint law of random weight vectors: how the rows of W, each N(0, I), are coupled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

_IID_GROUP = 256


class Coupling(ABC):
    """How weight vectors with the marginal law N(0, I) are drawn together.

    Vectors come in groups; those of different groups are independent. A member writes :meth:`group_size` and
    :meth:`draw`.
    """

    @abstractmethod
    def group_size(self, in_features: int) -> int:
        """How many vectors are drawn together.

        Args:
            in_features: d, their dimension.
        """

    @abstractmethod
    def draw(self, in_features: int, count: int, generator: torch.Generator) -> Float64[Tensor, "count group d"]:
        """Some groups of vectors.

        Args:
            in_features: d, their dimension.
            count: how many groups.
            generator: a CPU generator.
        """

    def describe(self) -> dict[str, Any]:
        """What this coupling is, as JSON data."""
        return {"class": type(self).__name__}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class IIDCoupling(Coupling):
    """Independent vectors, the plain Monte Carlo choice."""

    def group_size(self, in_features: int) -> int:
        """How many are drawn from one generator; they are independent all the same."""
        return _IID_GROUP

    def draw(self, in_features: int, count: int, generator: torch.Generator) -> Float64[Tensor, "count group d"]:
        """Standard normal entries; the stream is in float32."""
        return torch.randn(count, _IID_GROUP, in_features, generator=generator).double()
