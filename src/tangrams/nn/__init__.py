"""Layers, heads, losses, parametrizations and optimisers.

:class:`NTKLinear` and :class:`NTKConv2d` are layers in NTK parametrisation. :class:`SplinePackage` is a layer that
interpolates, :class:`PolyharmonicCascade` many of them.
:class:`CCP`, :class:`NCP` and :class:`ProductBlock` multiply layers.
:class:`CompressedLinear` keeps a compressed copy of its input for the backward pass, made by :class:`PAMM`,
:class:`UniformRows` or :class:`RandomProjection`.
How initial weights and learning rates follow the width is in :mod:`tangrams.nn.parametrizations`, optimisers are in
:mod:`tangrams.nn.optim`.
:class:`RandomFeatureAttention` attends in linear time.
"""

from tangrams.nn.activation_compression import (
    PAMM,
    CompressedLinear,
    RandomProjection,
    UniformRows,
    compress_activations_,
)
from tangrams.nn.ntk_linear import NTKConv2d, NTKLinear
from tangrams.nn.polyharmonic import PolyharmonicCascade, SplinePackage
from tangrams.nn.polynomial import CCP, NCP, ProductBlock
from tangrams.nn.random_feature_attention import RandomFeatureAttention, linear_attention

__all__ = [
    "CCP",
    "NCP",
    "PAMM",
    "CompressedLinear",
    "NTKConv2d",
    "NTKLinear",
    "PolyharmonicCascade",
    "ProductBlock",
    "RandomFeatureAttention",
    "RandomProjection",
    "SplinePackage",
    "UniformRows",
    "compress_activations_",
    "linear_attention",
]
