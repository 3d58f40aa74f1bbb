"""Every sketch against its promises."""

from tangrams.operators import (
    CountSketch,
    GaussianSketch,
    HadamardSketch,
    KroneckerSketch,
    RademacherSketch,
    SparseSketch,
    TensorSketch,
)
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.sketch import SketchSuite

TestSketches = conformance(
    SketchSuite,
    *(
        Case(lambda make=make: make(64, seed=0))
        for make in (
            CountSketch,
            GaussianSketch,
            HadamardSketch,
            KroneckerSketch,
            RademacherSketch,
            SparseSketch,
            TensorSketch,
        )
    ),
    Case(lambda: CountSketch(33, seed=7), name="CountSketch-odd"),
    Case(lambda: SparseSketch(50, nonzeros=3, seed=2), name="SparseSketch-uneven"),
    Case(lambda: HadamardSketch(700, seed=1), name="HadamardSketch-almost-square"),
    Case(lambda: KroneckerSketch(400, seed=1), name="KroneckerSketch-narrow-side-kept"),
)
