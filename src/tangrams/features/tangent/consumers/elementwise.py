"""Parameters that are broadcast: added, subtracted, multiplied, or slopes of a PReLU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tangrams.features.tangent.axis import Axis
from tangrams.features.tangent.consumers.base import Consumer, Source


class _Broadcast(Consumer):
    """The gradient times the derivative, summed over the dimensions along which the parameter was broadcast."""

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Consumer | None:
        """Parameters that take one side alone and are broadcast along some dimension."""
        if len(sources) != 1:
            return None
        kept = {slot: s for slot, s in sources.items() if s.is_view}
        return cls(node, kept) if kept else None

    @property
    def _padded(self) -> tuple[int, ...]:
        (source,) = self.sources.values()
        return (1,) * (len(self.shape) - len(source.seen)) + source.seen

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions along which the parameter is broadcast."""
        return tuple(d for d, (own, full) in enumerate(zip(self._padded, self.shape, strict=True)) if own != full)

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The derivative: autograd frees what it saved once it has run."""
        self.axis, self.n, self.dtype = axis, n, dtype
        (slot,) = self.sources
        self._derivative = self.derivative(slot)

    def derivative(self, slot: int) -> Tensor | float:
        """Of the output with respect to the parameter, elementwise."""
        raise NotImplementedError

    def arrange(self, gradient: Tensor) -> Tensor:
        """The gradient as it is."""
        return gradient.to(self.dtype)

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """``Σ g · derivative`` over broadcast dimensions."""
        product = gradient * self._derivative
        first = self.axis.samples_first(product, self.n)
        summed = [1 + d + (d > self.axis.dim) for d in self.dims if d != self.axis.dim]
        summed += [1 + self.axis.dim, 2 + self.axis.dim]
        out.copy_(first.sum(summed).reshape(self.n, -1))


class Addition(_Broadcast):
    """``x + α w`` and ``x − α w``."""

    def derivative(self, slot: int) -> float:
        """1 on the left; α or −α on the right."""
        if slot == 0:
            return 1.0
        sign = -1.0 if self.node.name() == "SubBackward0" else 1.0
        return sign * float(self.node._saved_alpha)


class Expansion(_Broadcast):
    """A parameter broadcast by ``expand``, such as a class token."""

    def derivative(self, slot: int) -> float:
        """1."""
        return 1.0


class Product(_Broadcast):
    """``x ⊙ w``."""

    def derivative(self, slot: int) -> Tensor:
        """The other side."""
        other = self.node._saved_other if slot == 0 else self.node._saved_self
        return other.detach().to(self.dtype)


class PReLU(_Broadcast):
    """``max(x, 0) + w min(x, 0)``."""

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Consumer | None:
        """The slopes; not the input."""
        return super().accept(node, sources) if 0 not in sources else None

    def derivative(self, slot: int) -> Tensor:
        """``min(x, 0)``."""
        return self.node._saved_self.detach().to(self.dtype).clamp_max(0)
