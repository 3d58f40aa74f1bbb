"""The Laplace kernel, the stationary kin of the ReLU tangent kernel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tangrams.kernels.gamma_exponential import ExponentialOfDistance


class LaplaceKernel(ExponentialOfDistance):
    r"""The Laplace kernel, of Euclidean distance: the Matérn kernel with ν = 1/2 [018].

    .. math:: k(x, x') = \exp\!\left(-\frac{\lVert x - x' \rVert_2}{ℓ}\right)

    On the unit sphere its functions are those of the ReLU tangent kernel with a bias. Distances are exact
    (differences, not inner products), and their gradient at coinciding samples is zero. Samples of any shape are
    flattened.

    Args:
        lengthscale: ℓ at the start.
        **kwargs: of GPyTorch: ``ard_num_dims`` for one ℓ per feature, ``lengthscale_constraint``, ``batch_shape``, …

    Shape:
        ``(n, …)`` → ``(n, m)``.

    Raises:
        ValueError: if ``lengthscale <= 0``.
    """

    def __init__(self, lengthscale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(lengthscale, **kwargs)

    def _profile(self, distance: Tensor) -> Tensor:
        return torch.exp(-distance)
