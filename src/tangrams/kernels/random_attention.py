"""The kernel of attention with infinitely many random heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tangrams.features.random.attention import as_sequences
from tangrams.kernels.base import Kernel
from tangrams.kernels.ntk.dual import DualActivation
from tangrams.kernels.ntk.piecewise_duals import ReLU

_ELEMENTS = 1 << 22
"""Pairs of keys that are in hand at once."""


class RandomAttentionKernel(Kernel):
    r"""What the Gram matrix of :class:`~tangrams.features.RandomAttentionFeatures` tends to with many heads [039].

    .. math:: k = \frac{1}{N N'} \sum_{ij} T\!\left(s^2 \lVert \tilde x_0 \rVert^2 \lVert \tilde x_i \rVert^2,\;
              s^2 \lVert \tilde x'_0 \rVert^2 \lVert \tilde x'_j \rVert^2,\;
              s^2 \tilde x_0^T \tilde x'_0 \, \tilde x_i^T \tilde x'_j\right) \tilde x_i^T \tilde x'_j

    with T the dual of the activation, for ReLU the arc-cosine kernel, and x̃ = (x, 1). O(N N′ d) a pair of samples.

    Args:
        in_features: d, entries of the query and of each key.
        activation: the dual of σ.
        weight_std: s.
        **kwargs: of :class:`~tangrams.kernels.Kernel`: for GPyTorch an ``event_shape`` of ``(1 + N, d)``.

    Shape:
        n and m samples as the map takes them → ``(n, m)``.

    Raises:
        ValueError: if d is below one or s is not positive.
    """

    def __init__(
        self, in_features: int, activation: DualActivation | None = None, *, weight_std: float = 0.5, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if in_features < 1 or not weight_std > 0:
            raise ValueError(
                f"RandomAttentionKernel needs in_features ≥ 1 and weight_std > 0, got {in_features} and {weight_std}"
            )
        self.in_features = int(in_features)
        self.activation = activation or ReLU()
        self.weight_std = float(weight_std)

    def _gram(self, x: Any, y: Any) -> Tensor:
        left = self._read(x)
        right = left if y is x else self._read(y)
        width = max(1, right[1].shape[0] * right[1].shape[1] * left[1].shape[1])
        step = max(1, _ELEMENTS // width)
        q, k, share = left
        panels = [
            self._block(q[i : i + step], k[i : i + step], share[i : i + step], *right) for i in range(0, len(q), step)
        ]
        return torch.cat(panels) if panels else left[0].new_empty(0, len(right[0]))

    def _diag(self, x: Any) -> Tensor:
        query, keys, share = self._read(x)
        pairs = keys @ keys.mT
        norms = query.square().sum(1)[:, None] * keys.square().sum(2)
        T = self._dual(norms[:, :, None], norms[:, None], query.square().sum(1)[:, None, None] * pairs)
        return torch.einsum("ni,nij,nj->n", share, T * pairs, share)

    def _block(self, q: Tensor, k: Tensor, share: Tensor, q2: Tensor, k2: Tensor, share2: Tensor) -> Tensor:
        pairs = torch.einsum("nid,mjd->nimj", k, k2)
        norms = q.square().sum(1)[:, None] * k.square().sum(2)
        norms2 = q2.square().sum(1)[:, None] * k2.square().sum(2)
        T = self._dual(norms[:, :, None, None], norms2, (q @ q2.mT)[:, None, :, None] * pairs)
        return torch.einsum("ni,nimj,mj->nm", share, T * pairs, share2)

    def _dual(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        s = self.weight_std**2
        return self.activation.T(s * p, s * q, s * r)

    def _read(self, x: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented query and keys, and the share of each key in the mean."""
        query, keys, mask = as_sequences(x, self.in_features, type(self).__name__)
        one = query.new_ones(1)
        augmented = [torch.cat([part, one.expand(*part.shape[:-1], 1)], -1) for part in (query, keys)]
        return augmented[0], augmented[1], mask.to(query) / mask.sum(1, keepdim=True)
