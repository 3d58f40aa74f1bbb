"""Tangent rules as functions of tensors: ``(value, tangent)`` in, ``(value, tangent)`` out.

Each is exact, and checked against ``torch.func.jvp``. A tangent that is None is zero and costs nothing.
"""

from tangrams.nn.tangent.rules.attention import dot_attention
from tangrams.nn.tangent.rules.elementwise import gelu, glu, quotient, relu, sigmoid, silu, softmax, tanh
from tangrams.nn.tangent.rules.linear import convolution, linear, product
from tangrams.nn.tangent.rules.lookup import embedding, embedding_bag
from tangrams.nn.tangent.rules.normalisation import batch_norm, layer_norm, normalize

__all__ = [
    "batch_norm",
    "convolution",
    "dot_attention",
    "embedding",
    "embedding_bag",
    "gelu",
    "glu",
    "layer_norm",
    "linear",
    "normalize",
    "product",
    "quotient",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "tanh",
]
