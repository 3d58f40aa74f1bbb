"""The generalised Gauss–Newton matrix of a loss of a model's outputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from tangrams.operators.curvature.base import CurvatureOperator, Parameters


class GaussNewtonOperator(CurvatureOperator):
    r"""``Jᵀ (∇²_f ℓ) J``, the Hessian of a loss without the curvature of the model [062].

    For the squared loss ``‖f − y‖² / 2`` meaned over n samples its eigenvalues are those of the tangent Gram, over n.

    Args:
        outputs: named parameters → the outputs f of all samples.
        loss: outputs → a scalar, convex for a positive semi-definite matrix.
        at: where.
        dtype: of the answers.

    Shape:
        ``(p, p)``

    Raises:
        ValueError: if the parameters are none, mixed or of low precision.

    Example:
        >>> at = {"w": torch.tensor([1.0, 2.0])}
        >>> G = GaussNewtonOperator(outputs=lambda p: p["w"] ** 2, loss=lambda f: f.square().sum() / 2, at=at)
        >>> G @ torch.ones(2)
        tensor([ 4., 16.])
    """

    def __init__(
        self,
        *,
        outputs: Callable[[Parameters], Tensor],
        loss: Callable[[Tensor], Tensor],
        at: Parameters,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(at, dtype, outputs=outputs, loss=loss, at=at, dtype=dtype)
        self.outputs, self.loss = outputs, loss

    def _product(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        f, pull, *_ = vjp(self.outputs, self.at)
        bend = vjp(grad(self.loss), f)[1]

        def one(v: dict[str, Tensor]) -> dict[str, Tensor]:
            moved = jvp(self.outputs, (self.at,), (v,))[1]
            return pull(bend(moved)[0])[0]

        return vmap(one)(vectors)

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> GaussNewtonOperator:
        at = {name: value.to(device=device) for name, value in self.at.items()}
        return GaussNewtonOperator(outputs=self.outputs, loss=self.loss, at=at, dtype=dtype or self.dtype)
