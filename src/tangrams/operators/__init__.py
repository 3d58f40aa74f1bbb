"""Matrices with structure, the feature matrix, sketches, solves and spectra.

Everything a feature matrix is asked goes through here: products and rows by :class:`FeatureMatrix`, inner products by
:class:`GramMatrix`, answers by :func:`solve`, :func:`logdet` and :func:`eigsh`, which reach the accuracy they are asked
for or raise :class:`ConvergenceError`. Sparse matrices are :class:`CSR`, multiplied by :func:`spgemm`; more of that is
in :mod:`tangrams.operators.sparse_products`.
"""

from tangrams.operators.constellation import (
    ConstellationInverse,
    constellation_features,
    constellation_nodes,
    constellation_solve,
)
from tangrams.operators.cosine import cosine_transform, inverse_cosine_transform
from tangrams.operators.dense_rows import ColumnRows, DenseRows, row_panels
from tangrams.operators.eigen import Eigenpairs, eigsh
from tangrams.operators.errors import ConvergenceError
from tangrams.operators.feature_matrix import FeatureMatrix, as_feature_matrix, trace
from tangrams.operators.gram_matrix import GramMatrix
from tangrams.operators.hadamard import hadamard_transform
from tangrams.operators.levelling import spectral_transform
from tangrams.operators.normal_matrix import NormalMatrix, normal_matrix
from tangrams.operators.point_matmul import (
    CompressedRows,
    pamm_compress,
    pamm_error_bound,
    pamm_generators_needed,
    pamm_matmul,
)
from tangrams.operators.ridge import GramSpectrum
from tangrams.operators.rows import Rows
from tangrams.operators.sampling import (
    PrioritySampler,
    RowSample,
    RowSampler,
    SampleMismatchError,
    ThresholdSampler,
    aggregate_rows,
    estimate_gram,
    estimate_product,
    leverage_scores,
    median_estimate,
    norms,
    product_error_bound,
    squared_norms,
    uniform,
    uniform_hash,
)
from tangrams.operators.sketch_error import EmbeddingStatistics, SketchError, embedding_statistics, sketch_error
from tangrams.operators.sketches import (
    CirculantSketch,
    Column,
    CosineSketch,
    CountSketch,
    GaussianSketch,
    HadamardSketch,
    KhatriRaoSketch,
    KroneckerSketch,
    OrthogonalSketch,
    PooledHadamardSketch,
    RademacherSketch,
    Sketch,
    SparseSketch,
    TensorHadamardSketch,
    TensorSketch,
    block_generator,
)
from tangrams.operators.solve import LogDeterminant, logdet, solve
from tangrams.operators.sparse_products import CSR, SparseProductOperator, masked_spgemm, spgemm, triangle_count
from tangrams.operators.spectra import (
    PowerLaw,
    effective_rank,
    fit_power_law,
    gram_spectrum,
    hill_alpha,
    participation_ratio,
    spectral_entropy,
    stable_rank,
)
from tangrams.operators.spectral_norm import SpectralNorm, spectral_norm
from tangrams.operators.times_transposed import times_transposed

__all__ = [
    "CSR",
    "CirculantSketch",
    "Column",
    "ColumnRows",
    "CompressedRows",
    "ConstellationInverse",
    "ConvergenceError",
    "CosineSketch",
    "CountSketch",
    "DenseRows",
    "Eigenpairs",
    "EmbeddingStatistics",
    "FeatureMatrix",
    "GaussianSketch",
    "GramMatrix",
    "GramSpectrum",
    "HadamardSketch",
    "KhatriRaoSketch",
    "KroneckerSketch",
    "LogDeterminant",
    "NormalMatrix",
    "OrthogonalSketch",
    "PooledHadamardSketch",
    "PowerLaw",
    "PrioritySampler",
    "RademacherSketch",
    "RowSample",
    "RowSampler",
    "Rows",
    "SampleMismatchError",
    "Sketch",
    "SketchError",
    "SparseProductOperator",
    "SparseSketch",
    "SpectralNorm",
    "TensorHadamardSketch",
    "TensorSketch",
    "ThresholdSampler",
    "aggregate_rows",
    "as_feature_matrix",
    "block_generator",
    "constellation_features",
    "constellation_nodes",
    "constellation_solve",
    "cosine_transform",
    "effective_rank",
    "eigsh",
    "embedding_statistics",
    "estimate_gram",
    "estimate_product",
    "fit_power_law",
    "gram_spectrum",
    "hadamard_transform",
    "hill_alpha",
    "inverse_cosine_transform",
    "leverage_scores",
    "logdet",
    "masked_spgemm",
    "median_estimate",
    "normal_matrix",
    "norms",
    "pamm_compress",
    "pamm_error_bound",
    "pamm_generators_needed",
    "pamm_matmul",
    "participation_ratio",
    "product_error_bound",
    "row_panels",
    "sketch_error",
    "solve",
    "spectral_entropy",
    "spectral_norm",
    "spectral_transform",
    "spgemm",
    "squared_norms",
    "stable_rank",
    "times_transposed",
    "trace",
    "triangle_count",
    "uniform",
    "uniform_hash",
]
