"""A curvature in the coordinates in which an optimiser takes plain gradient steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tangrams.operators.curvature.base import CurvatureOperator


class PreconditionedCurvature(CurvatureOperator):
    r"""``P^{1/2} A P^{1/2}`` for a diagonal P, which has the eigenvalues of ``P A`` [062].

    With P the rate of every parameter, gradient descent on a quadratic loss is stable while the largest is below two.

    Args:
        curvature: A.
        scales: name → the entries of P, one or more per parameter; not negative.
        dtype: of the answers.

    Shape:
        ``(p, p)``

    Raises:
        ValueError: if a parameter has no scale, or one is negative.
    """

    def __init__(
        self, *, curvature: CurvatureOperator, scales: Mapping[str, Tensor | float], dtype: torch.dtype | None = None
    ) -> None:
        missing = [name for name in curvature.at if name not in scales]
        if missing:
            raise ValueError(f"PreconditionedCurvature has no scale for {missing[:4]}")
        roots = {
            name: torch.as_tensor(scales[name], dtype=p.dtype, device=p.device) for name, p in curvature.at.items()
        }
        negative = [name for name, scale in roots.items() if bool((scale < 0).any())]
        if negative:
            raise ValueError(f"PreconditionedCurvature has negative scales for {negative[:4]}")
        super().__init__(curvature.at, dtype or curvature.dtype, curvature=curvature, scales=scales, dtype=dtype)
        self.curvature, self.scales = curvature, scales
        self._roots = {name: scale.sqrt() for name, scale in roots.items()}

    def _product(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        inner = self.curvature._product({name: v * self._roots[name] for name, v in vectors.items()})
        return {name: v * self._roots[name] for name, v in inner.items()}

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> PreconditionedCurvature:
        return PreconditionedCurvature(
            curvature=self.curvature.to(device=device) if device else self.curvature,
            scales=self.scales,
            dtype=dtype or self.dtype,
        )
