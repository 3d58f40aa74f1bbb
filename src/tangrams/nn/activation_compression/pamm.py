"""Keeps a few rows of the input, and for every other the row it is closest to in direction, and a scale [090]."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tangrams.nn.activation_compression.base import ActivationCompression, Compressed, check_ratio, kept_rows
from tangrams.operators import CompressedRows, pamm_compress, pamm_matmul


class PAMM(ActivationCompression):
    r"""The point approximation of the input: ``k = max(1, round(ratio · b))`` rows stand for all b.

    .. math:: dW ≈ β \Big(C^⊤ \sum_{f(i) = j} α_i\, dZ_i\Big)^⊤, \qquad X_i ≈ α_i C_{f(i)}

    See :func:`~tangrams.operators.pamm_compress`. Kept are k·n entries and, for each of the b rows, a scale and an
    index (of two bytes up to k = 2¹⁵): of b·n entries a share of about ``ratio + 2/n``, which no ratio brings
    below 2/n.

    Args:
        ratio: share of the rows that is kept.
        epsilon: rows farther than this from their line, relative to their norm, are dropped.
        seed: fixes every draw.

    Raises:
        ValueError: if ratio is not in (0, 1], or epsilon negative or not a number.

    [090] QKV Projections Require a Fraction of Their Memory.
    """

    def __init__(self, ratio: float = 1 / 512, *, epsilon: float = math.inf, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.ratio = check_ratio("PAMM", ratio)
        if not epsilon >= 0:
            raise ValueError(f"PAMM expects epsilon ≥ 0, got {epsilon}: use inf to keep every row")
        self.epsilon = float(epsilon)

    def _compress(self, x: Float[Tensor, "b n"], generator: torch.Generator) -> Compressed:
        rows = pamm_compress(x, kept_rows(self.ratio, len(x)), epsilon=self.epsilon, generator=generator)
        return Compressed((rows.generators, rows.assign, rows.scale * rows.beta), _product)


def _product(
    dZ: Float[Tensor, "b m"], generators: Float[Tensor, "k n"], assign: Int[Tensor, "b"], scale: Float[Tensor, "b"]
) -> Float[Tensor, "m n"]:
    return pamm_matmul(CompressedRows(generators, assign, scale, 1.0, None, math.inf), dZ).mT
