"""The polyharmonic kernel of random-function theory, r² (ln r − b) + c."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tangrams.kernels.base import Kernel
from tangrams.operators.constellation import OFFSET, SHIFT, polyharmonic


class PolyharmonicKernel(Kernel):
    r"""The shifted polyharmonic (thin-plate) kernel, a covariance of the samples that lie near one another [097].

    .. math:: k(x, x') = r^2 (\ln r - b) + c, \qquad r = \lVert x - x' \rVert

    r² ln r alone is conditionally positive definite; the shift by −b r² + c makes it a covariance within a distance
    that c bounds: where ``|k| > k(0) = c`` it is none, and such samples are refused. A length scale is b (and the
    kernel's scale): ``ℓ`` adds ``ln ℓ``. Samples of any shape are flattened.

    Args:
        b: shift of the logarithm.
        c: the value at zero.
        **kwargs: of GPyTorch.

    Shape:
        ``(n, …)`` → ``(n, m)``.

    Raises:
        ValueError: if ``c <= 0`` or b is not above ln 2.
    """

    vector_inputs = True
    has_lengthscale = False

    def __init__(self, b: float = SHIFT, c: float = OFFSET, **kwargs: Any) -> None:
        if not (b > math.log(2) and 0 < c < float("inf")):
            raise ValueError(f"PolyharmonicKernel needs b > ln 2 and c > 0, got b = {b} and c = {c}")
        super().__init__(**kwargs)
        self.b, self.c = float(b), float(c)

    def _gram(self, x: Tensor, y: Tensor) -> Tensor:
        # Differences, not the inner-product trick, which loses close distances; their gradient at zero is zero.
        distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
        K = polyharmonic(distance.square(), self.b) + self.c
        if bool((K.detach().abs() > self.c * (1 + 1e-6)).any()):
            raise ValueError(
                f"PolyharmonicKernel is no covariance of samples {float(distance.max()):.4g} apart: |k| exceeds "
                f"k(0) = {self.c:g}; normalise the samples, or raise b and c"
            )
        return K

    def _diag(self, x: Tensor) -> Tensor:
        return x.new_full(x.shape[:-1], self.c)
