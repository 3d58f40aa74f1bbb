"""How well a scalar kernel κ stands for the full tangent kernel Θ of all outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.learners.base import as_array
from tangrams.learners.linearized_regressor import LinearizedRegressor
from tangrams.operators import eigsh


def ntk_relative_error(full: Float[Tensor, "N M"], scalar: Float[Tensor, "n m"]) -> float:
    r"""``‖κ ⊗ I − Θ‖_F / ‖Θ‖_F``, which falls as 1/√width at initialisation [033].

    Args:
        full: Θ, ``(n·C, m·C)``, sample-major and output-minor.
        scalar: κ, ``(n, m)``: the pseudo-NTK, or any other.

    Raises:
        ValueError: if the sizes do not fit, or Θ is zero.
    """
    C = _outputs(full, scalar)
    n, m = scalar.shape
    blocks = full.reshape(n, C, m, C)
    squares = total = 0.0
    for i in range(n):  # one sample's blocks at a time: no second copy of Θ
        block = blocks[i].to(torch.float64, copy=True)  # (C, m, C)
        total += float(block.square().sum())
        block.diagonal(dim1=0, dim2=2).sub_(scalar[i].to(torch.float64)[:, None])
        squares += float(block.square().sum())
    if total == 0:
        raise ValueError("ntk_relative_error got a full kernel that is zero")
    return (squares / total) ** 0.5


def max_eig_ratio(full: Float[Tensor, "N N"], scalar: Float[Tensor, "n n"]) -> float:
    r"""``|λ_max(κ ⊗ I) − λ_max(Θ)| / λ_max(Θ)``, and κ ⊗ I has the largest eigenvalue of κ [033].

    Args:
        full: Θ, ``(n·C, n·C)``.
        scalar: κ, ``(n, n)``.

    Raises:
        ValueError: if the sizes do not fit, or Θ has no positive eigenvalue.
    """
    _outputs(full, scalar)
    largest = _largest_eigenvalue(full)
    if largest <= 0:
        raise ValueError("max_eig_ratio got a full kernel without a positive eigenvalue")
    return abs(_largest_eigenvalue(scalar) - largest) / largest


@dataclass(frozen=True)
class RegressionGap:
    """Kernel regression with the full kernel beside that with a scalar one, on the same samples.

    Attributes:
        relative_difference: ``‖f_κ − f_Θ‖_F / ‖f_Θ − f₀‖_F`` over the test samples.
        agreement: the share of test samples that both put into the same class.
        accuracy_full: of regression with Θ; NaN without labels.
        accuracy_scalar: of regression with κ; NaN without labels.
    """

    relative_difference: float
    agreement: float
    accuracy_full: float
    accuracy_scalar: float

    @property
    def accuracy_gap(self) -> float:
        """The accuracy with κ minus that with Θ, signed."""
        return self.accuracy_scalar - self.accuracy_full


def kernel_regression_gap(
    full: tuple[Tensor, Tensor],
    scalar: tuple[Tensor, Tensor],
    targets: Float[Tensor, "n C"],
    *,
    offsets: tuple[Tensor, Tensor] | None = None,
    labels: Any | None = None,
    delta: float = 0.0,
) -> RegressionGap:
    """How far the predictions of kernel regression with κ are from those with Θ [033].

    Args:
        full: Θ between the training samples, and between test and training samples.
        scalar: κ, likewise.
        targets: of the training samples.
        offsets: f₀ of the training and of the test samples; zero when absent.
        labels: true classes of the test samples.
        delta: the ridge in units of each kernel's mean diagonal.
    """
    before, after = (None, None) if offsets is None else offsets
    predictions = [
        LinearizedRegressor("precomputed", delta=delta).fit(train, targets, before).predict(cross, after)
        for train, cross in (full, scalar)
    ]
    start = 0.0 if after is None else as_array(after).astype(np.float64)
    exact, approximate = predictions
    moved = float(np.linalg.norm(exact - start))
    classes = [p.argmax(1) for p in predictions]
    truth = None if labels is None else as_array(labels)
    accuracy = [float("nan") if truth is None else float((c == truth).mean()) for c in classes]
    return RegressionGap(
        relative_difference=float(np.linalg.norm(approximate - exact)) / moved if moved > 0 else float("nan"),
        agreement=float((classes[0] == classes[1]).mean()),
        accuracy_full=accuracy[0],
        accuracy_scalar=accuracy[1],
    )


def _outputs(full: Tensor, scalar: Tensor) -> int:
    """C, from the sizes of Θ and κ."""
    (N, M), (n, m) = full.shape, scalar.shape
    if n == 0 or m == 0 or N % n or M % m or N // n != M // m:
        raise ValueError(f"a full kernel (n·C, m·C) and a scalar one (n, m) do not fit: {(N, M)} and {(n, m)}")
    return N // n


def _largest_eigenvalue(K: Tensor) -> float:
    return float(eigsh((K + K.mT).to(torch.float64) / 2, 1).values)
