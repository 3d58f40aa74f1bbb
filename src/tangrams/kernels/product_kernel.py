"""The product of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from tangrams.kernels.combined_kernel import CombinedKernel


class ProductKernel(CombinedKernel):
    r"""The product of kernels, :math:`k(x, x') = \prod_i k_i(x, x')`: that of the products of their features [007].

    With ``PosteriorKernel(k, x, noise)`` beside k, scaled by ``noise**-4``, it is the exact kernel of
    :class:`~tangrams.learners.selection.ACSGradientFeatures`.

    Args:
        kernels: at least one, each with as many outputs per sample.

    Shape:
        That of the kernels.

    Raises:
        ValueError: if there is none.

    Example:
        >>> from tangrams.kernels import LaplaceKernel
        >>> k = ProductKernel(LaplaceKernel(), LaplaceKernel(0.5))
        >>> k.gram(torch.zeros(1, 1), torch.ones(1, 1)).log().detach().round()
        tensor([[-3.]])
    """

    def _combine(self, values: Iterator[Tensor]) -> Tensor:
        return reduce(torch.mul, values)
