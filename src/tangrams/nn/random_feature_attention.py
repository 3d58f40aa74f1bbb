"""Self-attention in linear time, by positive random features of the softmax kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.features.random.couplings import Coupling, SimplexCoupling
from tangrams.features.random.stream import WeightStream


class RandomFeatureAttention(nn.Module):
    r"""Multi-head self-attention whose cost grows linearly in the length of the sequence [083].

    .. math:: \mathrm{out} = \frac{φ(Q) \, φ(K)^T V}{φ(Q) \, φ(K)^T 1}, \qquad
              φ(x)_i = \exp\!\left(w_i^T x - \tfrac12 \lVert x \rVert^2\right) + ε

    with queries and keys over the fourth root of the head's dimension, and directions w that are drawn once, shared by
    all heads and kept in the state. The largest feature of a query, and that of all keys, is divided out: this cancels
    in the ratio but for ε, which keeps the denominator from vanishing. In both directions of the sequence. With simplex
    directions the features have the smallest error; Choromanski et al. (2021) took orthogonal ones.

    Args:
        embed_dim: the dimension of every position.
        num_heads: heads, each of ``embed_dim / num_heads`` dimensions.
        num_features: m directions; as many as a head has dimensions by default.
        coupling: the joint law of the directions; a regular simplex by default.
        eps: ε; at zero numerator and denominator are unbiased.
        bias: whether the linear maps have one.
        seed: draws the directions.
        generator: draws the weights of the linear maps; the global stream by default.

    Shape:
        ``(n, L, embed_dim)``, mask ``(n, L)`` → ``(n, L, embed_dim)``.

    Raises:
        ValueError: if sizes are below one, heads do not divide the dimension, or ε is negative.
    """

    directions: Tensor

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 1,
        num_features: int | None = None,
        *,
        coupling: Coupling | None = None,
        eps: float = 1e-4,
        bias: bool = True,
        seed: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads or (num_features or 1) < 1:
            raise ValueError(
                f"RandomFeatureAttention needs sizes ≥ 1 and heads that divide embed_dim, got embed_dim={embed_dim}, "
                f"num_heads={num_heads}, num_features={num_features}"
            )
        if not eps >= 0:
            raise ValueError(f"RandomFeatureAttention needs eps ≥ 0, got {eps}")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.num_features = num_features or self.head_dim
        self.coupling = coupling or SimplexCoupling()
        self.eps = float(eps)
        self.in_proj = nn.Linear(embed_dim, 3 * embed_dim, bias=bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.register_buffer("directions", torch.empty(self.num_features, self.head_dim))
        self.reset_parameters(generator)
        self.redraw(seed)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the linear maps by Glorot's rule; biases are zero."""
        for layer in (self.in_proj, self.out_proj):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def redraw(self, seed: int) -> None:
        """Draw other directions.

        Args:
            seed: fixes the draw.
        """
        stream = WeightStream(self.head_dim, self.num_features, self.coupling, seed)
        with torch.no_grad():
            self.directions.copy_(stream.rows(0, self.num_features, self.directions).W)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            x: positions.
            mask: true where a position is one; others are not attended to. A sample without any gets zeros before the
                last linear map.
        """
        query, key, value = (self._heads(part) for part in self.in_proj(x).chunk(3, -1))
        scale = self.head_dim**-0.25
        keys = None if mask is None else mask[:, None, :, None]
        out = linear_attention(
            self._log_features(query * scale), self._log_features(key * scale), value, eps=self.eps, mask=keys
        )
        return self.out_proj(out.transpose(1, 2).flatten(2))

    def extra_repr(self) -> str:
        """Sizes and coupling."""
        return f"{self.embed_dim}, num_heads={self.num_heads}, num_features={self.num_features}, {self.coupling!r}"

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _log_features(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.linear(x, self.directions.to(x.dtype)) - x.square().sum(-1, keepdim=True) / 2


def linear_attention(
    log_queries: Tensor,
    log_keys: Tensor,
    value: Tensor,
    *,
    eps: float = 0.0,
    mask: Tensor | None = None,
) -> Tensor:
    """``φ(Q) (φ(K)ᵀ V) / φ(Q) (φ(K)ᵀ 1)`` from logarithms of positive features, in O((L + S) m e).

    Args:
        log_queries: log φ(Q), each known up to a constant.
        log_keys: log φ(K), known up to one constant.
        value: V.
        eps: added to features whose largest is one.
        mask: which keys count, broadcast against ``(*b, S, 1)``.

    Shape:
        ``(*b, L, m)``, ``(*b, S, m)``, ``(*b, S, e)`` → ``(*b, L, e)``.
    """
    queries = torch.exp(log_queries - log_queries.amax(-1, keepdim=True)) + eps
    if mask is not None:
        log_keys = log_keys.masked_fill(~mask, torch.finfo(log_keys.dtype).min)
    keys = torch.exp(log_keys - log_keys.amax((-2, -1), keepdim=True)) + eps
    if mask is not None:
        keys = keys * mask
    numerator = queries @ (keys.mT @ value.to(keys.dtype))
    denominator = queries @ keys.sum(-2)[..., None]
    return (numerator / denominator.clamp_min(torch.finfo(keys.dtype).tiny)).to(value.dtype)
