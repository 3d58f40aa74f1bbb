"""Matrices with structure, the feature matrix, sketches, solves and spectra."""

from tangrams.operators.dense_rows import DenseRows
from tangrams.operators.feature_matrix import FeatureMatrix, as_feature_matrix, trace
from tangrams.operators.gram_matrix import GramMatrix
from tangrams.operators.normal_matrix import NormalMatrix
from tangrams.operators.ridge import GramSpectrum
from tangrams.operators.rows import Rows
from tangrams.operators.sketches import Column, block_generator

__all__ = [
    "Column",
    "DenseRows",
    "FeatureMatrix",
    "GramMatrix",
    "GramSpectrum",
    "NormalMatrix",
    "Rows",
    "as_feature_matrix",
    "block_generator",
    "trace",
]
