"""Self-attention by scaled inner products, and by cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DotAttention(nn.Module):
    r"""Multi-head self-attention by scaled inner products [009].

    .. math:: o = \mathrm{softmax}(q k^\top / \sqrt{d_h})\, v, \qquad (q, k, v) = W x + b

    Linearised by :func:`~tangrams.nn.tangent.linearize` in the same pass, by the rule
    :func:`~tangrams.nn.tangent.rules.dot_attention`.

    Args:
        dim: d.
        heads: d divides into as many heads of width d_h.
        generator: draws the weights; the global stream by default.

    Shape:
        ``(n, N, d)`` → ``(n, N, d)``.

    Raises:
        ValueError: if ``heads`` does not divide ``dim``.
    """

    def __init__(self, dim: int, heads: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if dim < 1 or heads < 1 or dim % heads:
            raise ValueError(f"{type(self).__name__} needs heads that divide dim, got {heads} heads of {dim}")
        self.dim, self.heads = dim, heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Weights normal with deviation 0.02, cut at two; biases zero."""
        for layer in (self.qkv, self.out):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(self.attend(q, k, v).transpose(1, 2).reshape(n, tokens, dim))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``(n, heads, N, d_h)`` queries, keys and values → ``(n, heads, N, d_h)``."""
        return F.scaled_dot_product_attention(q, k, v)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.dim}, heads={self.heads}"


class CosineAttention(DotAttention):
    r"""Multi-head self-attention by cosines with a learned temperature per head.

    .. math:: o = \mathrm{softmax}(τ \hat q \hat k^\top)\, v, \qquad \hat q = q / \|q\|, \quad τ = \min(e^{s}, 100)

    Scores cannot grow with the norm of the tokens.

    Args:
        dim: d.
        heads: d divides into as many heads of width d_h.
        generator: draws the weights; the global stream by default.

    Shape:
        ``(n, N, d)`` → ``(n, N, d)``.
    """

    def __init__(self, dim: int, heads: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__(dim, heads, generator=generator)
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As of :class:`DotAttention`; temperatures ten."""
        super().reset_parameters(generator)
        if "log_scale" in self._parameters:  # the first draw comes before there are temperatures
            nn.init.constant_(self.log_scale, math.log(10.0))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Cosine attention per head."""
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        return torch.softmax(cosines * self.log_scale.clamp(max=math.log(100.0)).exp(), -1) @ v
