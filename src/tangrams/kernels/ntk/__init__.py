"""The analytic algebra of infinite-width kernels.

A network is a value: ``Serial(Dense(2**0.5), ReLU(), Dense())``. :class:`AnalyticNTK` and :class:`AnalyticNNGP` are its
two kernels; :class:`FullyConnectedNTK` spells out the usual one. Layers: :class:`Dense`, :class:`Conv`,
:class:`AvgPool`, :class:`GlobalAvgPool`, :class:`Flatten`, :class:`LayerNorm`, :class:`Identity`. They combine by
:class:`Serial`, :class:`ParallelSum` (residual blocks) and :class:`ParallelProduct` (polynomial networks, whose kernels
:class:`ProductNTK`, :class:`CCPNTK` and :class:`NCPNTK` spell out); :class:`Offset` adds a constant. Activations have
closed duals; :class:`QuadratureDual` takes any other smooth one.
"""

from tangrams.kernels.ntk.analytic import AnalyticNNGP, AnalyticNTK
from tangrams.kernels.ntk.conv import AvgPool, Conv
from tangrams.kernels.ntk.dual import DualActivation
from tangrams.kernels.ntk.fully_connected import FullyConnectedNNGP, FullyConnectedNTK
from tangrams.kernels.ntk.layers import (
    Dense,
    Flatten,
    GlobalAvgPool,
    Identity,
    Layer,
    LayerNorm,
    Offset,
    ParallelProduct,
    ParallelSum,
    Serial,
)
from tangrams.kernels.ntk.normalized_relu import NormalizedReLUNTK
from tangrams.kernels.ntk.piecewise_duals import ABReLU, Abs, Heaviside, LeakyReLU, ReLU, Sign
from tangrams.kernels.ntk.polynomial import CCPNTK, NCPNTK, ProductNTK
from tangrams.kernels.ntk.series_duals import Hermite, Polynomial, QuadratureDual
from tangrams.kernels.ntk.smooth_duals import GELU, RBF, Cos, Erf, Exp, Gaussian, Sin
from tangrams.kernels.ntk.state import KernelState

__all__ = [
    "CCPNTK",
    "GELU",
    "NCPNTK",
    "RBF",
    "ABReLU",
    "Abs",
    "AnalyticNNGP",
    "AnalyticNTK",
    "AvgPool",
    "Conv",
    "Cos",
    "Dense",
    "DualActivation",
    "Erf",
    "Exp",
    "Flatten",
    "FullyConnectedNNGP",
    "FullyConnectedNTK",
    "Gaussian",
    "GlobalAvgPool",
    "Heaviside",
    "Hermite",
    "Identity",
    "KernelState",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "NormalizedReLUNTK",
    "Offset",
    "ParallelProduct",
    "ParallelSum",
    "Polynomial",
    "ProductNTK",
    "QuadratureDual",
    "ReLU",
    "Serial",
    "Sign",
    "Sin",
]
