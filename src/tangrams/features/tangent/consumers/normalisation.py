"""Scales and shifts of layer, batch (with running statistics) and group normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tangrams.features.tangent.axis import Axis
from tangrams.features.tangent.consumers.base import Consumer, Source


class _Normalisation(Consumer):
    """``y = x̂ ⊙ w + b``: gradients ``Σ g ⊙ x̂`` and ``Σ g`` over the positions of a sample."""

    normalised: Tensor

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Consumer | None:
        """Weight and bias themselves."""
        kept = {slot: s for slot, s in sources.items() if slot in {1, 2} and s.is_view}
        return cls(node, kept) if kept and 0 not in sources else None


class LayerNorm(_Normalisation):
    """Normalised over the last dimensions, each position by itself."""

    @property
    def _features(self) -> int:
        return len(self.node._saved_normalized_shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """All dimensions that are not normalised."""
        return tuple(range(len(self.shape) - self._features))

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The normalised input as ``(n, T, d)``."""
        self.axis, self.n, self.dtype = axis, n, dtype
        if 1 in self.sources:
            node = self.node
            x = node._saved_input.detach().to(dtype)
            self.normalised = self.arrange(torch.mul(x - node._saved_result1.to(dtype), node._saved_result2.to(dtype)))

    def arrange(self, gradient: Tensor) -> Tensor:
        """``(n, T, d)``."""
        d = 1
        for size in self.shape[len(self.shape) - self._features :]:
            d *= size
        return self.axis.samples_first(gradient.to(self.dtype), self.n).reshape(self.n, -1, d)

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """``Σ_t g ⊙ x̂`` or ``Σ_t g``."""
        if slot == 1:
            gradient = gradient * self.normalised
        torch.sum(gradient, 1, out=out)


class BatchNorm(_Normalisation):
    """With running statistics: ``x̂ = (x − μ) r`` is affine in x, so nothing normalised is stored."""

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Consumer | None:
        """Only with running statistics: batch statistics couple the samples."""
        return None if node._saved_training else super().accept(node, sources)

    @property
    def dims(self) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The input as ``(n, T, c, S)``, μ and r."""
        self._sums: tuple[Tensor, Tensor] | None = None
        self.axis, self.n, self.dtype = axis, n, dtype
        if 1 in self.sources:
            node = self.node
            self.normalised = self.arrange(node._saved_input.detach())
            self.mean = node._saved_running_mean.detach().to(dtype)
            self.scale = (node._saved_running_var.detach().to(dtype) + node._saved_eps).rsqrt()

    def arrange(self, gradient: Tensor) -> Tensor:
        """``(n, T, c, S)``."""
        first = self.axis.samples_first(gradient.to(self.dtype), self.n)
        return first.reshape(self.n, self.axis.positions, self.shape[1], -1)

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """``r (Σ g x − μ Σ g)`` or ``Σ g``."""
        if self._sums is None or self._sums[0] is not gradient:
            self._sums = gradient, gradient.sum((1, 3))
        total = self._sums[1]
        if slot == 1:
            both = torch.linalg.vecdot(gradient, self.normalised).sum(1)
            total = both.sub_(total * self.mean).mul_(self.scale)
        out.copy_(total)


class GroupNorm(_Normalisation):
    """Normalised over groups of channels of each sample."""

    @property
    def dims(self) -> tuple[int, ...]:
        """The first."""
        return (0,)

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The normalised input as ``(n, T, c, S)``."""
        self.axis, self.n, self.dtype = axis, n, dtype
        if 1 in self.sources:
            node = self.node
            x = node._saved_input.detach().to(dtype)
            grouped = x.reshape(x.shape[0], node._saved_group, -1)
            mean = node._saved_result1.to(dtype).reshape(x.shape[0], -1, 1)
            scale = node._saved_result2.to(dtype).reshape(x.shape[0], -1, 1)
            self.normalised = self.arrange(((grouped - mean) * scale).reshape(x.shape))

    def arrange(self, gradient: Tensor) -> Tensor:
        """``(n, T, c, S)``."""
        first = self.axis.samples_first(gradient.to(self.dtype), self.n)
        return first.reshape(self.n, self.axis.positions, self.shape[1], -1)

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """``Σ g ⊙ x̂`` or ``Σ g``."""
        if slot == 1:
            gradient = gradient * self.normalised
        torch.sum(gradient, (1, 3), out=out)
