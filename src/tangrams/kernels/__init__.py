"""Gram matrices: empirical and analytic neural tangent kernels, Laplace and their kin.

All are a :class:`Kernel`: ``gram(x, y=None)`` and ``diag(x)`` for learners and lens, a GPyTorch kernel besides. For a
network of infinite width take :class:`AnalyticNTK` over the algebra in :mod:`tangrams.kernels.ntk`, or
:class:`FullyConnectedNTK`; for its stationary kin :class:`LaplaceKernel` and :class:`GammaExponential`.
"""

from tangrams.kernels.base import Kernel
from tangrams.kernels.gamma_exponential import GammaExponential
from tangrams.kernels.laplace import LaplaceKernel
from tangrams.kernels.ntk import (
    AnalyticNNGP,
    AnalyticNTK,
    FullyConnectedNNGP,
    FullyConnectedNTK,
    NormalizedReLUNTK,
)

__all__ = [
    "AnalyticNNGP",
    "AnalyticNTK",
    "FullyConnectedNNGP",
    "FullyConnectedNTK",
    "GammaExponential",
    "Kernel",
    "LaplaceKernel",
    "NormalizedReLUNTK",
]
