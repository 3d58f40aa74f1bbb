"""Products with Gaussian kernel matrices, exactly and in sub-quadratic time.

:class:`SparseGaussianKernelOperator` is where to start. Below it are pure functions: :func:`gaussian_product` is exact,
:func:`sparse_gaussian_product` takes near pairs and sampled keys. Pairs are found by :class:`ExactSearch`,
:class:`KDTreeSearch` (few dimensions) or :class:`LSHSearch`, which sizes an :class:`E2LSH` to the data; keys are drawn
by :class:`SquaredNormSampling` or, as in the paper, :class:`UniformSampling`.
"""

from tangrams.kernels.gaussian_products.dense import gaussian_block, gaussian_product
from tangrams.kernels.gaussian_products.e2lsh import E2LSH, LSHSearch, collision_probability
from tangrams.kernels.gaussian_products.operator import SparseGaussianKernelOperator
from tangrams.kernels.gaussian_products.samplings import KeySampling, SquaredNormSampling, UniformSampling
from tangrams.kernels.gaussian_products.searches import ExactSearch, KDTreeSearch, NearPairs, NeighbourSearch
from tangrams.kernels.gaussian_products.sparse import (
    AssumptionViolatedWarning,
    RowSample,
    SparsePlan,
    balanced_tau,
    closest_to_the_others,
    heavy_keys,
    near_product,
    plan_product,
    sample_rows,
    sparse_gaussian_product,
)

__all__ = [
    "E2LSH",
    "AssumptionViolatedWarning",
    "ExactSearch",
    "KDTreeSearch",
    "KeySampling",
    "LSHSearch",
    "NearPairs",
    "NeighbourSearch",
    "RowSample",
    "SparseGaussianKernelOperator",
    "SparsePlan",
    "SquaredNormSampling",
    "UniformSampling",
    "balanced_tau",
    "closest_to_the_others",
    "collision_probability",
    "gaussian_block",
    "gaussian_product",
    "heavy_keys",
    "near_product",
    "plan_product",
    "sample_rows",
    "sparse_gaussian_product",
]
