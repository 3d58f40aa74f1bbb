"""Layers, heads, losses, parametrizations and optimisers.

:class:`NTKLinear` and :class:`NTKConv2d` are layers in NTK parametrisation. :class:`SplinePackage` is a layer that
interpolates, :class:`PolyharmonicCascade` many of them.
:class:`CompressedLinear` keeps a compressed copy of its input for the backward pass, made by :class:`PAMM`,
:class:`UniformRows` or :class:`RandomProjection`.
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

__all__ = [
    "PAMM",
    "CompressedLinear",
    "NTKConv2d",
    "NTKLinear",
    "PolyharmonicCascade",
    "RandomProjection",
    "SplinePackage",
    "UniformRows",
    "compress_activations_",
]
