"""Residual networks whose branches shrink with depth: the families in which learning rates may transfer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Residual(nn.Module):
    """What the families share: ``h ← τ h + L^{-α} branch(h)``."""

    blocks: nn.ModuleList

    def __init__(self, depth: int, branch_exponent: float, skip: float) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"{type(self).__name__} needs depth ≥ 1, got {depth}")
        if branch_exponent < 0:
            raise ValueError(f"{type(self).__name__} needs branch_exponent ≥ 0, got {branch_exponent}")
        self.depth, self.branch_exponent, self.skip = depth, branch_exponent, skip

    @property
    def branch_scale(self) -> float:
        """``L^{-α}``."""
        return self.depth**-self.branch_exponent

    def branch_parameters(self) -> list[nn.Parameter]:
        """Parameters of all branches.

        Under α = 1/2 their rate for Adam is ``L^{-1/2}`` times that of the rest, since the steps of L branches add up:
        ``plan.adam(lr, params=[{"params": branch, "lr": lr * L**-0.5}, {"params": rest}])``. SGD's needs no factor.
        """
        return list(self.blocks.parameters())

    def outer_parameters(self) -> list[nn.Parameter]:
        """All others."""
        inner = {id(p) for p in self.branch_parameters()}
        return [p for p in self.parameters() if id(p) not in inner]

    def _run(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = self.skip * h + self.branch_scale * block(h)
        return h

    def extra_repr(self) -> str:
        """Depth and scales."""
        return f"depth={self.depth}, branch_exponent={self.branch_exponent:g}, skip={self.skip:g}"


def _layers(width: int, block_depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(block_depth):
        layers += [nn.ReLU(), nn.Linear(width, width, bias=False)]
    return nn.Sequential(*layers)


class ResidualMLP(_Residual):
    r"""A residual perceptron [062].

    .. math:: h^0 = W^0 x, \qquad h^{l+1} = τ h^l + L^{-α} W^l φ(h^l), \qquad f = W^L φ(h^L)

    Its width is for a parametrization: ``NeuralTangent().apply(model)`` is the NTK family, ``Spectral().apply(model)``
    or ``MaximalUpdate().apply(model, base)`` the μP one. With α = 1/2 and one layer per branch rates transfer over
    depth as well (Depth-μP); with two or more layers per branch that fails in part.

    Args:
        in_features: d.
        width: N.
        depth: L, branches.
        out_features: c.
        branch_exponent: α: 0 is no scaling, 1/2 Depth-μP, 1 the limit of a differential equation.
        block_depth: layers per branch.
        skip: τ.

    Shape:
        ``(…, d)`` → ``(…, c)``.

    Raises:
        ValueError: if depth or block_depth is below one, or the exponent negative.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        depth: int,
        out_features: int,
        *,
        branch_exponent: float = 0.5,
        block_depth: int = 1,
        skip: float = 1.0,
    ) -> None:
        super().__init__(depth, branch_exponent, skip)
        if block_depth < 1:
            raise ValueError(f"ResidualMLP needs block_depth ≥ 1, got {block_depth}")
        self.embed = nn.Linear(in_features, width, bias=False)
        self.blocks = nn.ModuleList([_layers(width, block_depth) for _ in range(depth)])
        self.readout = nn.Linear(width, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The network."""
        return self.readout(F.relu(self._run(self.embed(x))))


class ResidualConvNet(_Residual):
    """A residual convolutional network, one 3 × 3 convolution per branch, averaged over positions at the end [062].

    Args:
        in_channels: of the images.
        width: N, channels.
        depth: L.
        out_features: c.
        branch_exponent: α, as in :class:`ResidualMLP`.
        skip: τ.

    Shape:
        ``(n, C, h, w)`` → ``(n, c)``.

    Raises:
        ValueError: as :class:`ResidualMLP`.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        depth: int,
        out_features: int,
        *,
        branch_exponent: float = 0.5,
        skip: float = 1.0,
    ) -> None:
        super().__init__(depth, branch_exponent, skip)
        self.embed = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False)) for _ in range(depth)]
        )
        self.readout = nn.Linear(width, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The network."""
        return self.readout(F.relu(self._run(self.embed(x))).mean((-2, -1)))


class _Attention(nn.Module):
    """Self-attention with scores over the width of a head, as μP asks, normalised before."""

    def __init__(self, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm = nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm(h)
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(-2, -3) for layer in (self.query, self.key, self.value)
        )
        scores = q @ k.mT / q.shape[-1]
        if self.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=h.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(-2, -3).flatten(-2))


class _Feedforward(nn.Module):
    """Two layers four times as wide between, normalised before."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner, self.outer = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        return self.outer(F.gelu(self.inner(self.norm(h))))


class _Transformer(_Residual):
    """Attention and feed-forward branches in turn, 2 L of them; each scaled by ``L^{-α}``."""

    def __init__(self, width: int, depth: int, heads: int, branch_exponent: float, causal: bool) -> None:
        super().__init__(depth, branch_exponent, 1.0)
        if width % heads:
            raise ValueError(f"{type(self).__name__} needs a width that {heads} heads divide, got {width}")
        blocks: list[nn.Module] = []
        for _ in range(depth):
            blocks += [_Attention(width, heads, causal), _Feedforward(width)]
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width)


class ResidualGPT(_Transformer):
    """A causal transformer over tokens with learned positions, pre-norm, scaled branches [062].

    Give a parametrization the rule of its positions: ``fans={"positions": lookup_fans}``. A branch of attention and a
    feed-forward one are more than one layer deep, so rates transfer over width, and over depth only in part.

    Args:
        vocabulary: V.
        context: the longest sequence.
        width: N.
        depth: L, pairs of attention and feed-forward.
        heads: of attention.
        branch_exponent: α.

    Shape:
        token indices ``(n, t)`` → logits ``(n, t, V)``.

    Raises:
        ValueError: if the heads do not divide the width, or as :class:`ResidualMLP`.
    """

    def __init__(
        self, vocabulary: int, context: int, width: int, depth: int, heads: int = 4, *, branch_exponent: float = 0.5
    ) -> None:
        super().__init__(width, depth, heads, branch_exponent, causal=True)
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(context, width))
        self.readout = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """The network."""
        h = self.tokens(tokens) + self.positions[: tokens.shape[-1]]
        return self.readout(self.norm(self._run(h)))


class ResidualViT(_Transformer):
    """A vision transformer over patches with learned positions, averaged at the end [062].

    Positions need a rule: ``fans={"positions": lookup_fans}``, as in :class:`ResidualGPT`.

    Args:
        in_channels: of the images.
        image_size: side of the images.
        patch: side of a patch, which divides it.
        width: N.
        depth: L.
        out_features: c.
        heads: of attention.
        branch_exponent: α.

    Shape:
        ``(n, C, s, s)`` → ``(n, c)``.

    Raises:
        ValueError: if the patch does not divide the image, or as :class:`ResidualGPT`.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        patch: int,
        width: int,
        depth: int,
        out_features: int,
        heads: int = 4,
        *,
        branch_exponent: float = 0.5,
    ) -> None:
        super().__init__(width, depth, heads, branch_exponent, causal=False)
        if image_size % patch:
            raise ValueError(f"ResidualViT needs patches that divide the image, got {patch} and {image_size}")
        self.embed = nn.Conv2d(in_channels, width, patch, stride=patch, bias=False)
        self.positions = nn.Parameter(torch.randn((image_size // patch) ** 2, width))
        self.readout = nn.Linear(width, out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The network."""
        h = self.embed(x).flatten(-2).mT + self.positions
        return self.readout(self.norm(self._run(h)).mean(-2))
