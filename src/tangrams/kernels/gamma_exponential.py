"""Kernels that are the exponential of a power of the distance: between Laplace and Gauss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tangrams.kernels.base import Kernel


class ExponentialOfDistance(Kernel):
    """Kernels of the scaled distance ``‖(x − x′) / ℓ‖``; a member writes ``_profile``, one at zero."""

    has_lengthscale = True
    vector_inputs = True
    raw_lengthscale: torch.nn.Parameter

    def __init__(self, lengthscale: float = 1.0, **kwargs: Any) -> None:
        if not lengthscale > 0:
            raise ValueError(f"{type(self).__name__} needs lengthscale > 0, got {lengthscale}")
        super().__init__(**kwargs)
        self._set_lengthscale(lengthscale)

    def _set_lengthscale(self, value: float | Tensor) -> None:
        # GPyTorch rounds a Python number to the default dtype first, whatever that of the parameter.
        raw = self.raw_lengthscale
        super()._set_lengthscale(torch.as_tensor(value, dtype=raw.dtype, device=raw.device))

    def _profile(self, distance: Tensor) -> Tensor:
        raise NotImplementedError

    def _gram(self, x: Tensor, y: Tensor) -> Tensor:
        if self.ard_num_dims is not None and x.shape[-1] != self.ard_num_dims:
            raise ValueError(
                f"{type(self).__name__} has {self.ard_num_dims} length scales, got samples of {x.shape[-1]} features"
            )
        scale = self.lengthscale.to(torch.promote_types(self.lengthscale.dtype, x.dtype))
        # Differences, not the inner-product trick, which loses close distances; its gradient at zero is zero.
        distance = torch.cdist(x / scale, y / scale, compute_mode="donot_use_mm_for_euclid_dist")
        return self._profile(distance)

    def _diag(self, x: Tensor) -> Tensor:
        batch = torch.broadcast_shapes(x.shape[:-2], self.batch_shape)
        return x.new_ones(*batch, x.shape[-2])


class GammaExponential(ExponentialOfDistance):
    r"""The γ-exponential kernel: γ = 1 is Laplace, γ = 2 a Gaussian [018].

    .. math:: k(x, x') = \exp\!\left(-\left(\frac{\lVert x - x' \rVert_2}{ℓ}\right)^{γ}\right)

    The gradient at coinciding samples, infinite for γ < 1, is taken as zero. Samples of any shape are flattened.

    Args:
        gamma: γ in (0, 2]; beyond two it is no kernel.
        lengthscale: ℓ at the start.
        **kwargs: of GPyTorch: ``ard_num_dims``, ``lengthscale_constraint``, ``batch_shape``, …

    Shape:
        ``(n, …)`` → ``(n, m)``.

    Raises:
        ValueError: if γ is outside (0, 2] or ``lengthscale <= 0``.
    """

    def __init__(self, gamma: float = 1.0, lengthscale: float = 1.0, **kwargs: Any) -> None:
        if not 0 < gamma <= 2:
            raise ValueError(f"GammaExponential needs gamma in (0, 2], got {gamma}")
        super().__init__(lengthscale, **kwargs)
        self.gamma = float(gamma)

    def _profile(self, distance: Tensor) -> Tensor:
        apart = distance > 0
        power = torch.where(apart, torch.where(apart, distance, 1.0).pow(self.gamma), 0.0)
        return torch.exp(-power)
