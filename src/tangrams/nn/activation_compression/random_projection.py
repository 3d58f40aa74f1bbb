"""Keeps every row of the input in few random dimensions."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.nn.activation_compression.base import ActivationCompression, Compressed
from tangrams.operators import GaussianSketch, Sketch


class RandomProjection(ActivationCompression):
    r"""``X Sᵀ`` with a Gaussian sketch S, (k, n), that is drawn again from its seed in the backward pass.

    .. math:: dW ≈ dZ^⊤ (X S^⊤) S, \qquad \mathrm{E}\, S^⊤ S = I

    Unbiased. The projection of the hidden dimension that CompAct uses, here lifted back for the weight gradient;
    baseline of [090].

    Args:
        num_features: k, the dimensions that are kept of every row.
        seed: fixes every draw.

    Raises:
        ValueError: if ``num_features < 1``.
    """

    def __init__(self, num_features: int, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        if num_features < 1:
            raise ValueError(f"RandomProjection needs num_features ≥ 1, got {num_features}")
        self.num_features = int(num_features)

    def _compress(self, x: Float[Tensor, "b n"], generator: torch.Generator) -> Compressed:
        seed = int(torch.randint(1 << 62, (), generator=generator))
        sketch = GaussianSketch(self.num_features, seed=seed).bind(x.shape[1])
        return Compressed((sketch.project(x),), partial(_product, sketch=sketch))


def _product(dZ: Float[Tensor, "b m"], projected: Float[Tensor, "b k"], *, sketch: Sketch) -> Float[Tensor, "m n"]:
    dtype = torch.promote_types(torch.promote_types(projected.dtype, dZ.dtype), torch.float32)
    return sketch.lift(dZ.to(dtype).mT @ projected.to(dtype))
