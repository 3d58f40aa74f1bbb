"""Where the samples lie in a captured gradient: found by weighting the samples, never assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Dimension ``dim`` of a tensor runs over ``(outer, samples, inner)``.

    Rows may come as samples × positions (``outer = 1``) or, as in attention, as positions × samples (``inner = 1``).

    Attributes:
        dim: the dimension that holds the samples.
        outer: how many positions vary slower than the sample.
        inner: how many vary faster.
    """

    dim: int
    outer: int
    inner: int

    @property
    def positions(self) -> int:
        """Positions per sample along the dimension."""
        return self.outer * self.inner

    def samples_first(self, tensor: Tensor, n: int) -> Tensor:
        """``(…, outer·n·inner, …)`` → ``(n, …, outer, inner, …)``, a view where possible."""
        before, after = tensor.shape[: self.dim], tensor.shape[self.dim + 1 :]
        split = tensor.reshape(*before, self.outer, n, self.inner, *after)
        return split.movedim(self.dim + 1, 0)


def find_axis(plain: Tensor, weighted: Tensor, weights: Tensor, dims: Sequence[int]) -> Axis | None:
    """The axis along which ``weighted = weights · plain``, or None unless it is the only one.

    Both are gradients of a sum over samples, the second with sample i weighted by ``weights[i]``. Weights that are
    powers of two scale a backward pass without rounding. A zero gradient fits everywhere and is left undecided unless
    there is one candidate.

    Args:
        plain: gradient with weights one.
        weighted: gradient with the given weights.
        weights: ``(n,)``, distinct.
        dims: dimensions that may hold the samples.
    """
    n = len(weights)
    tolerance = 64 * torch.finfo(plain.dtype).eps
    found: list[Axis] = []
    candidates = 0
    scale = weights.to(plain)
    for dim in dims:
        size = plain.shape[dim]
        if size % n:
            continue
        rest = size // n
        for inner in (b for b in range(1, rest + 1) if rest % b == 0):
            candidates += 1
            axis = Axis(dim, rest // inner, inner)
            expected = axis.samples_first(plain, n)
            expected = expected * scale.reshape(-1, *[1] * (expected.ndim - 1))
            error = (axis.samples_first(weighted, n) - expected).abs().amax() if plain.numel() else plain.new_zeros(())
            if bool(error <= tolerance * expected.abs().amax().clamp_min(0) if plain.numel() else True):
                found.append(axis)
    if len(found) == 1 and (candidates == 1 or bool((plain != 0).any())):
        return found[0]
    return None
