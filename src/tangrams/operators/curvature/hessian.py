"""The Hessian of a function of named parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap

from tangrams.operators.curvature.base import CurvatureOperator, Parameters


class HessianOperator(CurvatureOperator):
    r"""``∇² L``, by differentiating the gradient in reverse [062].

    Args:
        loss: named parameters → a scalar; a pure function that torch.func can differentiate.
        at: where.
        dtype: of the answers.

    Shape:
        ``(p, p)``

    Raises:
        ValueError: if the parameters are none, mixed or of low precision.

    Example:
        >>> H = HessianOperator(loss=lambda p: (p["w"] ** 3).sum(), at={"w": torch.tensor([1.0, 2.0])})
        >>> H @ torch.ones(2)
        tensor([ 6., 12.])
    """

    def __init__(
        self, *, loss: Callable[[Parameters], Tensor], at: Parameters, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(at, dtype, loss=loss, at=at, dtype=dtype)
        self.loss = loss

    def _product(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        # Symmetric, so the transposed product of the gradient's Jacobian serves: one graph for all columns.
        pull = vjp(grad(self.loss), self.at)[1]
        return vmap(lambda v: pull(v)[0])(vectors)

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> HessianOperator:
        at = {name: value.to(device=device) for name, value in self.at.items()}
        return HessianOperator(loss=self.loss, at=at, dtype=dtype or self.dtype)
