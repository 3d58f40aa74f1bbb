"""Coordinated samples of rows: sketches of matrices that are held by different parties, made apart and used together.

A :class:`RowSample` keeps a few rows of a matrix as they are, chosen by hashes of their keys that all parties share, so
that the same rows tend to be kept everywhere; :func:`estimate_product` makes an unbiased ``AᵀB`` of two of them. Where
rows are sparse this beats any linear sketch at equal storage; where they are dense, the classes of
:mod:`tangrams.operators.sketches` do as well. These samples are no :class:`~tangrams.operators.Sketch`: which rows are
kept depends on the matrix, sums do not go through, and the weights of the estimate on both sides.

Take :class:`PrioritySampler` for samples of a fixed size, :class:`ThresholdSampler` for independent rows and an exact
variance. The weights decide what is kept: :func:`squared_norms` for products, :func:`norms` for end-biased samples,
:func:`leverage_scores` for the directions of one table, :func:`uniform` for keys alone.
"""

from tangrams.operators.sampling.hashing import uniform_hash
from tangrams.operators.sampling.priority import PrioritySampler
from tangrams.operators.sampling.product import (
    SampleMismatchError,
    estimate_gram,
    estimate_product,
    median_estimate,
    product_error_bound,
)
from tangrams.operators.sampling.rows import RowSample, RowSampler, aggregate_rows
from tangrams.operators.sampling.threshold import ThresholdSampler
from tangrams.operators.sampling.weights import leverage_scores, norms, squared_norms, uniform

__all__ = [
    "PrioritySampler",
    "RowSample",
    "RowSampler",
    "SampleMismatchError",
    "ThresholdSampler",
    "aggregate_rows",
    "estimate_gram",
    "estimate_product",
    "leverage_scores",
    "median_estimate",
    "norms",
    "product_error_bound",
    "squared_norms",
    "uniform",
    "uniform_hash",
]
