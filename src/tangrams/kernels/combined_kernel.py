"""Sums and products of kernels, and a kernel times a number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tangrams.kernels.base import Kernel


class CombinedKernel(Kernel):
    """A kernel made of others on the same samples; a member writes how their blocks are combined.

    Args:
        kernels: at least one, each with as many outputs per sample.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, *kernels: Kernel) -> None:
        if not kernels:
            raise ValueError(f"{type(self).__name__} needs at least one kernel")
        super().__init__(event_shape=kernels[0].event_shape)
        self.kernels = torch.nn.ModuleList(kernels)
        self.takes_targets = any(kernel.takes_targets for kernel in kernels)

    @property
    def outputs_per_input(self) -> int:  # type: ignore[override]
        """The first kernel's."""
        return self.kernels[0].outputs_per_input  # type: ignore[return-value]

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """The first kernel's."""
        return self.kernels[0].num_outputs_per_input(x1, x2)  # type: ignore[operator]

    def _combine(self, values: Iterator[Tensor]) -> Tensor:
        """Hook: the combined block; the kernels' own come one at a time, so that not all are in memory at once."""
        raise NotImplementedError

    def _gram(self, x: Any, y: Any) -> Tensor:
        return self._combine(self._alike(block(kernel, x, y) for kernel in self.kernels))  # type: ignore[arg-type]

    def _diag(self, x: Any) -> Tensor:
        return self._combine(self._alike(diagonal(kernel, x) for kernel in self.kernels))  # type: ignore[arg-type]

    def _alike(self, values: Iterator[Tensor]) -> Iterator[Tensor]:
        shape = None
        for value in values:
            shape = shape or value.shape
            if value.shape != shape:  # sums and products would broadcast one sample's rows
                raise ValueError(
                    f"{type(self).__name__} needs kernels of as many outputs per sample, got blocks of shape "
                    f"{tuple(shape)} and {tuple(value.shape)}"
                )
            yield value

    def _answer_dtype(self, x: Any) -> torch.dtype:
        return self.kernels[0]._answer_dtype(x)  # type: ignore[operator]


def block(kernel: Kernel, x: Any, y: Any) -> Tensor:
    """A kernel's block, its inputs brought to the form that it takes.

    Args:
        kernel: the kernel.
        x: samples.
        y: samples; x itself where they are the same.
    """
    left = kernel._validated(x, "x")
    return kernel._gram(left, left if y is x else kernel._validated(y, "y"))


def diagonal(kernel: Kernel, x: Any) -> Tensor:
    """A kernel's diagonal, its inputs brought to the form that it takes.

    Args:
        kernel: the kernel.
        x: samples.
    """
    return kernel._diag(kernel._validated(x, "x"))
