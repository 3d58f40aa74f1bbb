"""The covariance of a Gaussian process after samples are labelled."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tangrams.kernels.base import Kernel
from tangrams.kernels.combined_kernel import CombinedKernel, block, diagonal


class PosteriorKernel(CombinedKernel):
    r"""What is left of a kernel after samples are labelled [007].

    .. math:: k(x, x') - k(x, X) (k(X, X) + σ^2 I)^{-1} k(X, x')

    Conditioning twice is conditioning on the union. The factor is computed once, in float64, and again when a
    hyper-parameter of the kernel has changed; a network behind the kernel must stay as it is. The labelled
    samples follow ``.to(…)``. For feature rows :class:`~tangrams.learners.selection.PosteriorFeatures`.

    Args:
        kernel: k.
        x: the labelled samples X.
        noise: σ.

    Shape:
        That of the kernel.

    Raises:
        ValueError: if the noise is not positive.

    Example:
        >>> from tangrams.kernels import LaplaceKernel
        >>> PosteriorKernel(LaplaceKernel(), torch.zeros(1, 1), noise=1.0).diag(torch.zeros(1, 1)).detach()
        tensor([0.5000])
    """

    def __init__(self, kernel: Kernel, x: Any, noise: float = 0.1) -> None:
        if not noise > 0:
            raise ValueError(f"PosteriorKernel needs noise > 0, got {noise}: it is a standard deviation")
        super().__init__(kernel)
        self.noise = float(noise)
        self.labelled = x
        self._known: tuple[list[Tensor], Tensor] | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> PosteriorKernel:
        super()._apply(fn, recurse)
        self.labelled = tree_map_only(Tensor, fn, self.labelled)
        self._known = None
        return self

    @property
    def kernel(self) -> Kernel:
        """The kernel before anything was labelled."""
        return self.kernels[0]  # type: ignore[return-value]

    def _factor(self) -> Tensor:
        """L with ``L Lᵀ = k(X, X) + σ² I``; part of the graph while hyper-parameters are trained."""
        parameters = list(self.kernel.parameters())
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in parameters)
        # By value: GPyTorch sets hyper-parameters through .data, which no version counter sees.
        if not trained and self._known is not None and all(map(torch.equal, self._known[0], parameters)):
            return self._known[1]
        K = block(self.kernel, self.labelled, self.labelled).to(torch.float64)
        factor = torch.linalg.cholesky(K + self.noise**2 * torch.eye(len(K), dtype=K.dtype, device=K.device))
        self._known = ([p.detach().clone() for p in parameters], factor.detach())
        return factor

    def _whitened(self, x: Any) -> Tensor:
        """``L⁻¹ k(X, x)``: what is explained of each sample, in coordinates."""
        cross = block(self.kernel, self.labelled, x).to(torch.float64)
        return torch.linalg.solve_triangular(self._factor(), cross, upper=False)

    def _gram(self, x: Any, y: Any) -> Tensor:
        left = self._whitened(x)
        right = left if y is x else self._whitened(y)
        return block(self.kernel, x, y).to(torch.float64) - left.mT @ right

    def _diag(self, x: Any) -> Tensor:
        return diagonal(self.kernel, x).to(torch.float64) - self._whitened(x).square().sum(0)
