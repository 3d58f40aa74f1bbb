"""A kernel times a number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from tangrams.kernels.base import Kernel
from tangrams.kernels.combined_kernel import CombinedKernel


class ScaledKernel(CombinedKernel):
    r"""A kernel times a number, :math:`c\, k(x, x')` [007].

    ``ScaledKernel.to_unit(k, x)`` brings the mean diagonal over samples to one, so that a noise level means the same
    for every kernel. For a factor that is learned, ``gpytorch.kernels.ScaleKernel``.

    Args:
        kernel: k.
        scale: c > 0.

    Shape:
        That of the kernel.

    Raises:
        ValueError: if the scale is not positive.

    Example:
        >>> import torch
        >>> from tangrams.kernels import LaplaceKernel
        >>> ScaledKernel(LaplaceKernel(), 3.0).diag(torch.zeros(2, 1))
        tensor([3., 3.])
    """

    def __init__(self, kernel: Kernel, scale: float) -> None:
        if not scale > 0:
            raise ValueError(f"ScaledKernel needs scale > 0, got {scale}")
        super().__init__(kernel)
        self.scale = float(scale)

    @classmethod
    def to_unit(cls, kernel: Kernel, x: Any) -> ScaledKernel:
        """The kernel scaled to a mean diagonal of one over samples.

        Args:
            kernel: k.
            x: the samples, usually the labelled ones.

        Raises:
            ValueError: if its diagonal is zero on all of them.
        """
        mean = float(kernel.diag(x).detach().double().mean())
        if not mean > 0:
            raise ValueError(f"ScaledKernel cannot bring a mean diagonal of {mean} to one: the kernel is zero on x")
        return cls(kernel, 1 / mean)

    def _combine(self, values: Iterator[Tensor]) -> Tensor:
        return self.scale * next(values)
