"""The sum of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor

from tangrams.kernels.combined_kernel import CombinedKernel


class SumKernel(CombinedKernel):
    r"""The sum of kernels, :math:`k(x, x') = \sum_i k_i(x, x')`: that of their features side by side [007].

    Of the kernels of several networks it is the ensemble kernel.

    Args:
        kernels: at least one, each with as many outputs per sample.

    Shape:
        That of the kernels.

    Raises:
        ValueError: if there is none.

    Example:
        >>> from tangrams.kernels import LaplaceKernel
        >>> SumKernel(LaplaceKernel(), LaplaceKernel()).diag(torch.zeros(2, 3))
        tensor([2., 2.])
    """

    def _combine(self, values: Iterator[Tensor]) -> Tensor:
        return reduce(torch.add, values)
