"""The operations whose weight gradients have a known structure, one file per family."""

from tangrams.features.tangent.consumers.base import Consumer, Source
from tangrams.features.tangent.consumers.convolution import Convolution
from tangrams.features.tangent.consumers.elementwise import Addition, Expansion, PReLU, Product
from tangrams.features.tangent.consumers.linear import Linear
from tangrams.features.tangent.consumers.lookup import Lookup
from tangrams.features.tangent.consumers.normalisation import BatchNorm, GroupNorm, LayerNorm

BY_NODE: dict[str, type[Consumer]] = {
    "AddmmBackward0": Linear,
    "MmBackward0": Linear,
    "BmmBackward0": Linear,
    "ConvolutionBackward0": Convolution,
    "NativeLayerNormBackward0": LayerNorm,
    "NativeBatchNormBackward0": BatchNorm,
    "NativeGroupNormBackward0": GroupNorm,
    "EmbeddingBackward0": Lookup,
    "AddBackward0": Addition,
    "SubBackward0": Addition,
    "ExpandBackward0": Expansion,
    "MulBackward0": Product,
    "PreluKernelBackward0": PReLU,
}
"""Autograd node → what reads it. A node that is not here sends its parameters to the generic route."""

__all__ = ["BY_NODE", "Consumer", "Expansion", "Source"]
