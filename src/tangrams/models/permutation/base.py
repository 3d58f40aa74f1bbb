"""What ensembles that learn a permutation share: their question, and how means become bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from tangrams.lens.ensemble_complexity import Threshold, sign_threshold


class PermutationEnsemble(ABC):
    """Networks trained on the k basis vectors, whose averaged and rounded outputs permute any nonzero binary input.

    A member writes :meth:`mean_output`, and says how far from zero its outputs may be on training points.

    Args:
        permutation: π, ``(k,)``: bit i of the input becomes bit π(i) of the output.

    Raises:
        ValueError: if it has fewer than two entries or is no permutation of 0 … k−1.
    """

    tolerance: float = 1e-9
    """On training points the outputs that must not be ones are zero but for this much."""

    def __init__(self, permutation: Sequence[int] | Int64[Tensor, "k"]) -> None:
        self.permutation = torch.as_tensor(permutation, dtype=torch.int64)
        k = len(self.permutation)
        if k < 2 or not torch.equal(self.permutation.sort().values, torch.arange(k)):
            raise ValueError(
                f"{type(self).__name__} needs a permutation of 0 … k−1 with k ≥ 2, got {self.permutation.tolist()}"
            )

    @property
    def num_bits(self) -> int:
        """The length k of inputs and outputs."""
        return len(self.permutation)

    @property
    def targets(self) -> Float[Tensor, "k k"]:
        """The permuted basis vectors, a row for each basis vector."""
        return torch.eye(self.num_bits, dtype=torch.float64)[self.permutation]

    @abstractmethod
    def mean_output(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The average of the networks' outputs at checked inputs, float64."""

    def decision(self, x: Tensor) -> Float[Tensor, "n k"]:
        """The average of the networks' outputs.

        Args:
            x: nonzero binary inputs, ``(n, k)``, of any dtype; others are a ``ValueError``.
        """
        return self.mean_output(self._checked(x))

    def predict(self, x: Tensor, *, threshold: Threshold = sign_threshold) -> Bool[Tensor, "n k"]:
        """The bits.

        Args:
            x: nonzero binary inputs, ``(n, k)``, of any dtype.
            threshold: what an output must exceed to be a one.
        """
        cut = threshold(self.num_bits, self._checked(x).sum(1))
        return self.decision(x) > cut[:, None] + self.tolerance

    def permuted(self, x: Tensor) -> Bool[Tensor, "n k"]:
        """What the ensemble should predict."""
        out = torch.empty_like(x, dtype=torch.bool)
        out[:, self.permutation] = x != 0
        return out

    def _checked(self, x: Tensor) -> Float[Tensor, "n k"]:
        who = type(self).__name__
        if x.ndim != 2 or x.shape[1] != self.num_bits:
            raise ValueError(f"{who} needs inputs (n, {self.num_bits}), got {tuple(x.shape)}")
        if not bool(((x == 0) | (x == 1)).all()):
            raise ValueError(f"{who} needs binary inputs, got entries other than 0 and 1")
        empty = (x == 0).all(1)
        if bool(empty.any()):
            raise ValueError(f"{who}: input {int(empty.nonzero()[0])} is zero, and so is every network there")
        return x.to(torch.float64)
