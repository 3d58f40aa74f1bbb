"""Gram matrices: empirical and analytic neural tangent kernels, Laplace and their kin.

All are a :class:`Kernel`: ``gram(x, y=None)`` and ``diag(x)`` for learners and lens, a GPyTorch kernel besides. For a
network of infinite width take :class:`AnalyticNTK` over the algebra in :mod:`tangrams.kernels.ntk`, or
:class:`FullyConnectedNTK`; for its stationary kin :class:`LaplaceKernel` and :class:`GammaExponential`, for splines
:class:`PolyharmonicKernel`. For a network you have: :class:`EmpiricalNTK` in all its variants, :class:`ProjectedNTK`
where memory is short, :class:`LabelledPseudoNTK` for how labelled samples teach one another, :class:`ConjugateKernel`
and :class:`EmbeddingKernel` of activations;
:class:`CosineKernel` divides any kernel's norms out, :class:`PosteriorKernel` conditions on labelled samples,
:class:`SumKernel`, :class:`ProductKernel` and :class:`ScaledKernel` combine. :class:`FeatureKernel` makes a kernel of
any feature map. :class:`SparseGaussianKernelOperator` multiplies with large Gaussian kernel matrices; more in
:mod:`tangrams.kernels.gaussian_products`.
"""

from tangrams.kernels.base import Kernel
from tangrams.kernels.conjugate_kernel import ConjugateKernel
from tangrams.kernels.cosine_kernel import CosineKernel, ZeroGradientError
from tangrams.kernels.embedding_kernel import EmbeddingKernel
from tangrams.kernels.empirical_ntk import EmpiricalNTK
from tangrams.kernels.feature_kernel import FeatureKernel
from tangrams.kernels.gamma_exponential import GammaExponential
from tangrams.kernels.gaussian_products import SparseGaussianKernelOperator
from tangrams.kernels.labelled_pseudo_ntk import LabelledPseudoNTK
from tangrams.kernels.laplace import LaplaceKernel
from tangrams.kernels.ntk import (
    AnalyticNNGP,
    AnalyticNTK,
    FullyConnectedNNGP,
    FullyConnectedNTK,
    NormalizedReLUNTK,
)
from tangrams.kernels.polyharmonic import PolyharmonicKernel
from tangrams.kernels.posterior_kernel import PosteriorKernel
from tangrams.kernels.product_kernel import ProductKernel
from tangrams.kernels.projected_ntk import ProjectedNTK
from tangrams.kernels.random_attention import RandomAttentionKernel
from tangrams.kernels.scaled_kernel import ScaledKernel
from tangrams.kernels.sum_kernel import SumKernel

__all__ = [
    "AnalyticNNGP",
    "AnalyticNTK",
    "ConjugateKernel",
    "CosineKernel",
    "EmbeddingKernel",
    "EmpiricalNTK",
    "FeatureKernel",
    "FullyConnectedNNGP",
    "FullyConnectedNTK",
    "GammaExponential",
    "Kernel",
    "LabelledPseudoNTK",
    "LaplaceKernel",
    "NormalizedReLUNTK",
    "PolyharmonicKernel",
    "PosteriorKernel",
    "ProductKernel",
    "ProjectedNTK",
    "RandomAttentionKernel",
    "ScaledKernel",
    "SparseGaussianKernelOperator",
    "SumKernel",
    "ZeroGradientError",
]
