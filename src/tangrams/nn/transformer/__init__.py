"""Transformers with pre-norm blocks.

:class:`VisionTransformer` of :class:`TransformerBlock` with :class:`DotAttention` or :class:`CosineAttention`.
:func:`with_fresh_token` and :func:`with_fresh_blocks` prepare one for fine-tuning its last blocks.
"""

from tangrams.nn.transformer.attention import CosineAttention, DotAttention
from tangrams.nn.transformer.vision_transformer import (
    FreshToken,
    TransformerBlock,
    VisionTransformer,
    with_fresh_blocks,
    with_fresh_token,
)

__all__ = [
    "CosineAttention",
    "DotAttention",
    "FreshToken",
    "TransformerBlock",
    "VisionTransformer",
    "with_fresh_blocks",
    "with_fresh_token",
]
