"""Keeps a uniform sample of the input's rows: the simple thing that every compression has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tangrams.nn.activation_compression.base import ActivationCompression, Compressed, check_ratio, kept_rows


class UniformRows(ActivationCompression):
    r"""``k = max(1, round(ratio · b))`` rows, drawn uniformly without replacement; the others are lost.

    .. math:: dW ≈ \frac{b}{k} \sum_{i ∈ S} dZ_i X_i^⊤

    Unbiased. Baseline of [090].

    Args:
        ratio: share of the rows that is kept.
        seed: fixes every draw.

    Raises:
        ValueError: if ratio is not in (0, 1].
    """

    def __init__(self, ratio: float, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.ratio = check_ratio("UniformRows", ratio)

    def _compress(self, x: Float[Tensor, "b n"], generator: torch.Generator) -> Compressed:
        k = kept_rows(self.ratio, len(x))
        index = torch.randperm(len(x), generator=generator)[:k].to(device=x.device, dtype=torch.int32)
        return Compressed((x[index], index), _product)


def _product(dZ: Float[Tensor, "b m"], rows: Float[Tensor, "k n"], index: Int[Tensor, "k"]) -> Float[Tensor, "m n"]:
    dtype = torch.promote_types(torch.promote_types(rows.dtype, dZ.dtype), torch.float32)
    return (len(dZ) / len(index)) * dZ[index].to(dtype).mT @ rows.to(dtype)
