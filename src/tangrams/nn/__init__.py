"""Layers, heads, losses, parametrizations and optimisers.

:class:`NTKLinear` and :class:`NTKConv2d` are layers in NTK parametrisation. :class:`SplinePackage` is a layer that
interpolates, :class:`PolyharmonicCascade` many of them.
:class:`CCP`, :class:`NCP` and :class:`ProductBlock` multiply layers.
:class:`CompressedLinear` keeps a compressed copy of its input for the backward pass, made by :class:`PAMM`,
:class:`UniformRows` or :class:`RandomProjection`.
:class:`SIREN`, :class:`FINER`, :class:`WIRE`, :class:`Gauss` and their like are signals as functions of position;
:class:`InductiveGradientAdjustment` trains them against their spectral bias.
:func:`freeze_except` and :class:`UpdateMask` train a part of a network.
:class:`ResidualMLP`, :class:`ResidualConvNet`, :class:`ResidualGPT` and :class:`ResidualViT` shrink their branches with
depth.
Networks linearised in their weights are in :mod:`tangrams.nn.tangent`, vision transformers in
:mod:`tangrams.nn.transformer`, losses in :mod:`tangrams.nn.losses`.
How initial weights and learning rates follow the width is in :mod:`tangrams.nn.parametrizations`, optimisers are in
:mod:`tangrams.nn.optim`.
:class:`RandomFeatureAttention` attends in linear time, :func:`sparse_gaussian_attention` in sub-quadratic time where
few scores are large.
"""

from tangrams.nn.activation_compression import (
    PAMM,
    CompressedLinear,
    RandomProjection,
    UniformRows,
    compress_activations_,
)
from tangrams.nn.antisymmetric import Antisymmetric
from tangrams.nn.conv_net import ConvNet
from tangrams.nn.coordinate import (
    FINER,
    SIREN,
    WIRE,
    WIREFINER,
    CoordinateNetwork,
    FourierReparamLinear,
    Gauss,
    GaussFINER,
    PositionalEncodingMLP,
)
from tangrams.nn.freezing import (
    BatchNormAffine,
    UpdateMask,
    batchnorm_affine,
    batchnorm_layers,
    freeze_except,
    init_batchnorm_,
    output_layer,
    random_entries,
    random_entries_per_channel,
)
from tangrams.nn.gradient_adjustment import (
    Centre,
    GroupPartition,
    InductiveGradientAdjustment,
    LargestError,
    RandomMember,
)
from tangrams.nn.ntk_linear import NTKConv2d, NTKLinear
from tangrams.nn.polyharmonic import PolyharmonicCascade, SplinePackage
from tangrams.nn.polynomial import CCP, NCP, ProductBlock
from tangrams.nn.random_feature_attention import RandomFeatureAttention, linear_attention
from tangrams.nn.residual_networks import ResidualConvNet, ResidualGPT, ResidualMLP, ResidualViT
from tangrams.nn.sparse_gaussian_attention import attention_as_gaussian, sparse_gaussian_attention
from tangrams.nn.training_recipe import CIFAR_RECIPE, IMAGENET_RECIPE, TrainingRecipe

__all__ = [
    "CCP",
    "CIFAR_RECIPE",
    "FINER",
    "IMAGENET_RECIPE",
    "NCP",
    "PAMM",
    "SIREN",
    "WIRE",
    "WIREFINER",
    "Antisymmetric",
    "BatchNormAffine",
    "Centre",
    "CompressedLinear",
    "ConvNet",
    "CoordinateNetwork",
    "FourierReparamLinear",
    "Gauss",
    "GaussFINER",
    "GroupPartition",
    "InductiveGradientAdjustment",
    "LargestError",
    "NTKConv2d",
    "NTKLinear",
    "PolyharmonicCascade",
    "PositionalEncodingMLP",
    "ProductBlock",
    "RandomFeatureAttention",
    "RandomMember",
    "RandomProjection",
    "ResidualConvNet",
    "ResidualGPT",
    "ResidualMLP",
    "ResidualViT",
    "SplinePackage",
    "TrainingRecipe",
    "UniformRows",
    "UpdateMask",
    "attention_as_gaussian",
    "batchnorm_affine",
    "batchnorm_layers",
    "compress_activations_",
    "freeze_except",
    "init_batchnorm_",
    "linear_attention",
    "output_layer",
    "random_entries",
    "random_entries_per_channel",
    "sparse_gaussian_attention",
]
