"""A vision transformer with pre-norm blocks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.nn.transformer.attention import DotAttention


class TransformerBlock(nn.Module):
    r"""Attention and a two-layer network, each behind a norm and added to what came in [009].

    .. math:: x \leftarrow x + γ_1 \circ \mathrm{attention}(\mathrm{LN}(x)), \qquad
        x \leftarrow x + γ_2 \circ \mathrm{MLP}(\mathrm{LN}(x))

    Args:
        dim: d.
        heads: of the attention.
        mlp_ratio: hidden width of the MLP over d.
        attention: the class of attention.
        layer_scale: the start of γ; None leaves it out.
        generator: draws the weights; the global stream by default.

    Shape:
        ``(n, N, d)`` → ``(n, N, d)``.
    """

    scale1: nn.Parameter | None
    scale2: nn.Parameter | None

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        *,
        attention: type[DotAttention] = DotAttention,
        layer_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.layer_scale = layer_scale
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attention = attention(dim, heads, generator=generator)
        hidden = int(dim * mlp_ratio)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        for name in ("scale1", "scale2"):
            self.register_parameter(name, None if layer_scale is None else nn.Parameter(torch.empty(dim)))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all weights anew."""
        self.attention.reset_parameters(generator)
        for norm in (self.norm1, self.norm2):
            norm.reset_parameters()
        for layer in (self.up, self.down):
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04, generator=generator)
            nn.init.zeros_(layer.bias)
        for scale in (self.scale1, self.scale2):
            if scale is not None and self.layer_scale is not None:
                nn.init.constant_(scale, self.layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        inner = self.attention(self.norm1(x))
        x = x + (inner if self.scale1 is None else self.scale1 * inner)
        inner = self.down(F.gelu(self.up(self.norm2(x))))
        return x + (inner if self.scale2 is None else self.scale2 * inner)


class VisionTransformer(nn.Module):
    r"""Images as patches, a class token, pre-norm blocks, and the normalised token at the end [009].

    Args:
        image_size: side of the images.
        patch_size: side of the patches; divides ``image_size``.
        channels: of the images.
        dim: d.
        depth: the number of blocks.
        heads: of the attention.
        num_classes: outputs of a linear head; None for the features of the class token, ``(n, d)``.
        mlp_ratio: hidden width of the MLPs over d.
        attention: the class of attention.
        layer_scale: as for :class:`TransformerBlock`.
        generator: draws the weights; the global stream by default.

    Shape:
        ``(n, channels, image_size, image_size)`` → ``(n, num_classes)`` or ``(n, d)``.

    Raises:
        ValueError: if the patches do not cover the image.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        channels: int,
        dim: int,
        depth: int,
        heads: int,
        num_classes: int | None = None,
        *,
        mlp_ratio: float = 4.0,
        attention: type[DotAttention] = DotAttention,
        layer_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if patch_size < 1 or image_size < 1 or image_size % patch_size:
            raise ValueError(f"VisionTransformer needs patches that divide {image_size} pixels, got {patch_size}")
        tokens = (image_size // patch_size) ** 2 + 1
        self.patches = nn.Conv2d(channels, dim, patch_size, patch_size)
        self.token = nn.Parameter(torch.empty(1, 1, dim))
        self.places = nn.Parameter(torch.empty(1, tokens, dim))
        self.blocks = nn.Sequential(
            *(
                TransformerBlock(
                    dim, heads, mlp_ratio, attention=attention, layer_scale=layer_scale, generator=generator
                )
                for _ in range(depth)
            )
        )
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head: nn.Module = nn.Identity() if num_classes is None else nn.Linear(dim, num_classes)
        for weight in (self.patches.weight, self.token, self.places):
            nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04, generator=generator)
        assert self.patches.bias is not None
        nn.init.zeros_(self.patches.bias)
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02, a=-0.04, b=0.04, generator=generator)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The class token at the end."""
        patches = self.patches(x).flatten(2).transpose(1, 2)
        z = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.places
        return self.head(self.norm(self.blocks(z)[:, 0]))


class FreshToken(nn.Module):
    r"""Puts a new class token, drawn from :math:`N(0, 10^{-12})`, in place of the old [009].

    Args:
        dim: d.
        generator: draws it; the global stream by default.

    Shape:
        ``(n, N, d)`` → ``(n, N, d)``.
    """

    def __init__(self, dim: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.token = nn.Parameter(1e-6 * torch.randn(1, 1, dim, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """The new token and the other tokens."""
        return torch.cat([self.token.expand(len(x), -1, -1), x[:, 1:]], 1)


def with_fresh_token(
    vit: VisionTransformer, block: int, *, generator: torch.Generator | None = None
) -> VisionTransformer:
    """A copy that gets a new class token in front of a block, such as the first that is fine-tuned [009].

    Args:
        vit: the transformer; not changed.
        block: index of the block, also from the end.
        generator: draws the token.
    """
    vit = copy.deepcopy(vit)
    token = FreshToken(vit.token.shape[-1], generator=generator).to(vit.token)
    vit.blocks[block] = nn.Sequential(token, vit.blocks[block])
    return vit


def with_fresh_blocks(
    vit: VisionTransformer, block: int, *, generator: torch.Generator | None = None
) -> VisionTransformer:
    """A copy whose blocks from one on have new weights: linearised around random last blocks, as in the paper's code.

    Args:
        vit: the transformer; not changed.
        block: index of the first such block, also from the end.
        generator: draws the weights.

    Raises:
        TypeError: if a block there is no :class:`TransformerBlock`.
    """
    vit = copy.deepcopy(vit)
    for fresh in list(vit.blocks)[block:]:
        if not isinstance(fresh, TransformerBlock):
            raise TypeError(f"with_fresh_blocks expects TransformerBlock, got {type(fresh).__name__}")
        fresh.reset_parameters(generator)
    return vit
