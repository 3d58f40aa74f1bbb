"""Matrix products with a weight: ``Addmm``, ``Mm`` and ``Bmm`` with a broadcast weight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tangrams.features.tangent.axis import Axis
from tangrams.features.tangent.consumers.base import Consumer, Source

_SLOTS = {"AddmmBackward0": (1, 2), "MmBackward0": (0, 1), "BmmBackward0": (0, 1)}


class Linear(Consumer):
    """``y = x Wᵀ + b`` at T positions per sample: the weight gradient is ``Σ_t g_t ⊗ a_t``.

    Attributes:
        inputs: a, ``(n, T, i)``, once loaded.
    """

    inputs: Tensor

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Linear | None:
        """Weights on the right of the product, and the bias of ``Addmm``."""
        name = node.name()
        left, right = _SLOTS[name]
        if name == "AddmmBackward0" and (node._saved_alpha != 1 or node._saved_beta != 1):
            return None
        kept = {}
        weight = sources.get(right)
        if weight is not None and left not in sources and len(weight.seen) == 2 + (name == "BmmBackward0"):
            matrix = weight.seen[-2:]
            numel = matrix[0] * matrix[1]
            own = weight.shape[0] * (1 if len(weight.shape) == 1 else _product(weight.shape[1:]))
            if own == numel and (name != "BmmBackward0" or weight.expanded or weight.seen[0] == 1):
                kept[right] = weight
        bias = sources.get(0) if name == "AddmmBackward0" else None
        if bias is not None and not bias.transposed and _product(bias.shape) == node._input_metadata[0].shape[-1]:
            kept[0] = bias
        return cls(node, kept) if kept else None

    @property
    def weight_slot(self) -> int:
        """The slot of the weight."""
        return _SLOTS[self.node.name()][1]

    @property
    def dims(self) -> tuple[int, ...]:
        """All but the features."""
        return tuple(range(len(self.shape) - 1))

    @property
    def out_features(self) -> int:
        """The number of output features."""
        return self.shape[-1]

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The inputs as ``(n, T, i)``."""
        self.axis, self.n, self.dtype = axis, n, dtype
        if self.weight_slot not in self.sources:
            return
        node = self.node
        saved = node._saved_mat1 if node.name() == "AddmmBackward0" else node._saved_self
        saved = saved.detach().to(dtype)
        self.inputs = axis.samples_first(saved, n).reshape(n, -1, saved.shape[-1])

    def arrange(self, gradient: Tensor) -> Tensor:
        """``(n, T, o)``."""
        return self.axis.samples_first(gradient.to(self.dtype), self.n).reshape(self.n, -1, gradient.shape[-1])

    def channels(self, slot: int) -> int:
        """Its output features, for a weight ``(o, i)``."""
        return self.out_features if slot == self.weight_slot and self.sources[slot].transposed else 0

    def split(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """Some output features."""
        return gradient[..., start:stop]

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """``Σ_t g_t ⊗ a_t`` for the weight, ``Σ_t g_t`` for the bias."""
        if slot != self.weight_slot:
            torch.sum(gradient, 1, out=out)
            return
        left, right = self._factors(slot, gradient)
        view = out.view(self.n, left.shape[2], right.shape[2])
        if gradient.shape[1] == 1:
            torch.mul(left.mT, right, out=view)
        else:
            torch.bmm(left.mT, right, out=view)

    def outer(self, slot: int, gradient: Tensor) -> tuple[Tensor, Tensor] | None:
        """``(g, a)`` for the weight."""
        return self._factors(slot, gradient) if slot == self.weight_slot else None

    def _factors(self, slot: int, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return (gradient, self.inputs) if self.sources[slot].transposed else (self.inputs, gradient)


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product
