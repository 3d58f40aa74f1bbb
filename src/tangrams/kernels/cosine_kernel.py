"""A kernel with its norms divided out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tangrams.kernels.base import Kernel


class ZeroGradientError(ValueError):
    """The cosine of a zero feature row was asked for.

    Attributes:
        indices: the rows, in order.
    """

    def __init__(self, indices: list[int], name: str) -> None:
        shown = ", ".join(map(str, indices[:10])) + (", …" if len(indices) > 10 else "")
        super().__init__(
            f"CosineKernel got {len(indices)} zero feature rows in {name}, at {shown}: they have no direction; "
            "leave these samples out"
        )
        self.indices = indices


class CosineKernel(Kernel):
    r"""A kernel's cosine, :math:`k(x, x') / \sqrt{k(x, x) \, k(x', x')}`: one on the diagonal, at most one elsewhere.

    Of the trace NTK it is the kernel of the surrogates of [072], of the labelled pseudo-NTK what relations are read
    from [022]. Scaling the network's outputs leaves it unchanged.

    Args:
        kernel: the kernel that is normalised.

    Shape:
        That of the kernel.

    Raises:
        ZeroGradientError: from ``gram`` and ``diag``, if a sample has no norm.

    Example:
        >>> from tangrams.kernels import EmpiricalNTK
        >>> CosineKernel(EmpiricalNTK(torch.nn.Linear(1, 1, bias=False))).gram(torch.tensor([[1.0], [-2.0]]))
        tensor([[ 1., -1.],
                [-1.,  1.]])
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(event_shape=kernel.event_shape, batch_shape=kernel.batch_shape)
        self.base_kernel = kernel
        self.vector_inputs = kernel.vector_inputs
        self.takes_targets = kernel.takes_targets

    @property
    def outputs_per_input(self) -> int:  # type: ignore[override]
        """The kernel's."""
        return self.base_kernel.outputs_per_input

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """The kernel's."""
        return self.base_kernel.num_outputs_per_input(x1, x2)

    def _gram(self, x: Any, y: Any) -> Tensor:
        K = self.base_kernel._gram(x, y)
        if y is x:
            left = right = _norms(K.diagonal(dim1=-2, dim2=-1), "x")
        else:
            left, right = _norms(self.base_kernel._diag(x), "x"), _norms(self.base_kernel._diag(y), "y")
        return K / left[..., :, None] / right[..., None, :]

    def _diag(self, x: Any) -> Tensor:
        return torch.ones_like(_norms(self.base_kernel._diag(x), "x"))

    def _validated(self, x: Any, name: str) -> Any:
        try:
            return self.base_kernel._validated(x, name)
        except (TypeError, ValueError) as error:
            raise type(error)(f"CosineKernel of {error}") from None

    def _check_pair(self, x: Any, y: Any) -> None:
        try:
            self.base_kernel._check_pair(x, y)
        except (TypeError, ValueError) as error:
            raise type(error)(f"CosineKernel of {error}") from None

    def _answer_dtype(self, x: Any) -> torch.dtype:
        return self.base_kernel._answer_dtype(x)


def _norms(diagonal: Tensor, name: str) -> Tensor:
    zero = ~(diagonal > 0)
    if bool(zero.any()):
        raise ZeroGradientError(zero.reshape(-1, zero.shape[-1]).any(0).nonzero()[:, 0].tolist(), name)
    return diagonal.sqrt()
