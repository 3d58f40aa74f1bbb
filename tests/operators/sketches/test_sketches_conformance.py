"""Every sketch against its promises."""

from tangrams.operators import (
    CirculantSketch,
    CosineSketch,
    CountSketch,
    GaussianSketch,
    HadamardSketch,
    KhatriRaoSketch,
    KroneckerSketch,
    OrthogonalSketch,
    PooledHadamardSketch,
    RademacherSketch,
    SparseSketch,
    TensorHadamardSketch,
    TensorSketch,
)
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.sketch import SketchSuite

TestSketches = conformance(
    SketchSuite,
    *(
        Case(lambda make=make: make(64, seed=0))
        for make in (
            CirculantSketch,
            CosineSketch,
            CountSketch,
            GaussianSketch,
            HadamardSketch,
            KhatriRaoSketch,
            KroneckerSketch,
            OrthogonalSketch,
            PooledHadamardSketch,
            RademacherSketch,
            SparseSketch,
            TensorHadamardSketch,
            TensorSketch,
        )
    ),
    Case(lambda: CountSketch(33, seed=7), name="CountSketch-odd"),
    Case(lambda: SparseSketch(50, nonzeros=3, seed=2), name="SparseSketch-uneven"),
    Case(lambda: HadamardSketch(700, seed=1), name="HadamardSketch-almost-square"),
    Case(lambda: CosineSketch(700, seed=1), name="CosineSketch-almost-square"),
    Case(lambda: PooledHadamardSketch(50, seed=1), name="PooledHadamardSketch-uneven"),
    Case(lambda: KroneckerSketch(400, seed=1), name="KroneckerSketch-narrow-side-kept"),
)
