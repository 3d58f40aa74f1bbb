"""Sketches: random projections that never hold their matrix.

``S`` is (k, p) with ``E SᵀS = I``; ``Φ @ S.mT`` or ``phi >> sketch`` are k features with the same inner products up to
``standard_error``. Start with :class:`CountSketch`: one pass at the speed of memory, the same bound as dense signs.
:class:`SparseSketch` for lighter tails, :class:`HadamardSketch` and :class:`GaussianSketch` for classical guarantees,
:class:`TensorSketch` where weight gradients come as outer products, :class:`KroneckerSketch` where nothing else is
affordable, at the error it states.
"""

from tangrams.operators.sketches.base import BLOCK, Column, Sketch, block_generator
from tangrams.operators.sketches.count import CountSketch
from tangrams.operators.sketches.gaussian import GaussianSketch
from tangrams.operators.sketches.hadamard import HadamardSketch
from tangrams.operators.sketches.kronecker import KroneckerSketch
from tangrams.operators.sketches.matrix import SketchMatrix
from tangrams.operators.sketches.rademacher import RademacherSketch
from tangrams.operators.sketches.sparse import SparseSketch
from tangrams.operators.sketches.tensor import TensorSketch

__all__ = [
    "BLOCK",
    "Column",
    "CountSketch",
    "GaussianSketch",
    "HadamardSketch",
    "KroneckerSketch",
    "RademacherSketch",
    "Sketch",
    "SketchMatrix",
    "SparseSketch",
    "TensorSketch",
    "block_generator",
]
