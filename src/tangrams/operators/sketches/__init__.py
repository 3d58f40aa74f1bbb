"""Sketches: random projections that never hold their matrix.

``S`` is (k, p) with ``E SᵀS = I``; ``Φ @ S.mT`` or ``phi >> sketch`` are k features with the same inner products up to
``standard_error``. Start with :class:`CountSketch`: one pass at the speed of memory, the same bound as dense signs.
:class:`SparseSketch` for lighter tails, :class:`HadamardSketch`, :class:`CosineSketch` (no padding) and
:class:`CirculantSketch` for dense ones at the cost of an FFT, :class:`GaussianSketch` and :class:`OrthogonalSketch` for
exact laws, :class:`TensorSketch` and :class:`TensorHadamardSketch` where weight gradients come as outer products,
:class:`KhatriRaoSketch` there too, by matrix products alone, at a larger variance, and :class:`KroneckerSketch` where
nothing else is affordable, at the error it states.

The rows of a regression are sketched by the same classes: bound to its n rows, ``S @ A`` is ``project(A.mT).mT``, and
rows that come in panels are added by ``accumulate``. :class:`PooledHadamardSketch` is the one whose guarantee for every
coordinate is proven. Transforms that mix all columns (Hadamard, cosine) still take any block of columns: they are cut
at the blocks of the stream, within which the transform is whole, and signs of Hadamard's order tie the blocks together.
"""

from tangrams.operators.sketches.base import BLOCK, Column, Sketch, block_generator
from tangrams.operators.sketches.circulant import CirculantSketch
from tangrams.operators.sketches.cosine import CosineSketch
from tangrams.operators.sketches.count import CountSketch
from tangrams.operators.sketches.gaussian import GaussianSketch
from tangrams.operators.sketches.hadamard import HadamardSketch
from tangrams.operators.sketches.khatri_rao import KhatriRaoSketch
from tangrams.operators.sketches.kronecker import KroneckerSketch
from tangrams.operators.sketches.matrix import SketchMatrix
from tangrams.operators.sketches.orthogonal import OrthogonalSketch
from tangrams.operators.sketches.pooled import PooledHadamardSketch
from tangrams.operators.sketches.rademacher import RademacherSketch
from tangrams.operators.sketches.sparse import SparseSketch
from tangrams.operators.sketches.tensor import TensorSketch
from tangrams.operators.sketches.tensor_hadamard import TensorHadamardSketch

__all__ = [
    "BLOCK",
    "CirculantSketch",
    "Column",
    "CosineSketch",
    "CountSketch",
    "GaussianSketch",
    "HadamardSketch",
    "KhatriRaoSketch",
    "KroneckerSketch",
    "OrthogonalSketch",
    "PooledHadamardSketch",
    "RademacherSketch",
    "Sketch",
    "SketchMatrix",
    "SparseSketch",
    "TensorHadamardSketch",
    "TensorSketch",
    "block_generator",
]
