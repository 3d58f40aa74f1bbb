"""Embedding tables: a row of the table for every token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tangrams.features.tangent.axis import Axis
from tangrams.features.tangent.consumers.base import Consumer, Source


class Lookup(Consumer):
    """``y_t = W[token_t]``: a sample's gradient is zero but in the rows of its tokens.

    Attributes:
        tokens: ``(n, T)``, −1 where the padding index stands, once loaded.
    """

    tokens: Tensor

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Lookup | None:
        """The table itself; scaling by frequency counts over the whole batch and is left to the generic route."""
        table = sources.get(0)
        if table is None or not table.is_view or len(table.seen) != 2 or node._saved_scale_grad_by_freq:
            return None
        return cls(node, {0: table})

    @property
    def dims(self) -> tuple[int, ...]:
        """All but the features."""
        return tuple(range(len(self.shape) - 1))

    @property
    def width(self) -> int:
        """The number of features."""
        return self.shape[-1]

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The tokens, samples first."""
        self.axis, self.n, self.dtype = axis, n, dtype
        indices = self.node._saved_indices
        self.tokens = axis.samples_first(indices, n).reshape(n, -1)
        padding = self.node._saved_padding_idx
        if 0 <= padding < 2**62:
            self.tokens = torch.where(self.tokens == padding, -1, self.tokens)

    def arrange(self, gradient: Tensor) -> Tensor:
        """``(n, T, d)``."""
        return self.axis.samples_first(gradient.to(self.dtype), self.n).reshape(self.n, -1, self.width)

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """Every token's gradient added to its row of the table."""
        vocabulary = self.sources[slot].seen[0]
        add_tokens(self.tokens, gradient, vocabulary, out)


def add_tokens(tokens: Tensor, gradient: Tensor, vocabulary: int, out: Tensor) -> None:
    """``out (n, V·d)`` ← the gradients ``(n, T, d)`` gathered by token; tokens outside 0 … V − 1 are left out."""
    n, _, d = gradient.shape
    place = tokens + torch.arange(n, device=tokens.device)[:, None] * vocabulary
    keep = (tokens >= 0) & (tokens < vocabulary)
    if not bool(keep.all()):
        place = torch.where(keep, place, n * vocabulary)
        table = gradient.new_zeros(n * vocabulary + 1, d)
        table.index_add_(0, place.reshape(-1), gradient.reshape(-1, d))
        out.view(n * vocabulary, d).copy_(table[:-1])
        return
    out.zero_()
    out.view(n * vocabulary, d).index_add_(0, place.reshape(-1), gradient.reshape(-1, d))
