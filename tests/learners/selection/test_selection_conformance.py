"""Every selector and transformation joins its role's suite, and passes all of scikit-learn's checks."""

from tangrams.learners import (
    BAIT,
    ACSGradientFeatures,
    ACSHyperRandomFeatures,
    ACSRandomFeatures,
    FrankWolfe,
    KMeansPlusPlus,
    LargestClusterMaxDistance,
    MaxDeterminant,
    MaxDiagonal,
    MaxDistance,
    PosteriorFeatures,
    RandomSelection,
    TabularMLPRegressor,
    UnitDiagonal,
)
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

MOMENT = {"check_stored_rows_are_never_held_whole": "takes the d × d moment of the features: sketch first"}
NETWORK = {"check_stored_rows_are_never_held_whole": "trains a network on the rows, which it holds"}

TestSelectors = estimator_conformance(
    Case(lambda: RandomSelection(3)),
    Case(lambda: MaxDiagonal(3)),
    Case(lambda: MaxDistance(3)),
    Case(lambda: KMeansPlusPlus(3)),
    Case(lambda: LargestClusterMaxDistance(3)),
    Case(lambda: MaxDeterminant(3)),
    Case(lambda: FrankWolfe(3)),
    Case(lambda: BAIT(3)),
    Case(lambda: BAIT(3, overselection=2.0), name="BAIT-backward"),
)

TestTransformations = estimator_conformance(
    Case(UnitDiagonal),
    Case(lambda: PosteriorFeatures(0.5)),
    Case(lambda: ACSRandomFeatures(7, noise=0.5), excuses=MOMENT),
    Case(lambda: ACSHyperRandomFeatures(7), excuses=MOMENT),
    Case(lambda: ACSGradientFeatures(7, noise=0.5), excuses=MOMENT),
)

TestTabularMLP = estimator_conformance(
    Case(lambda: TabularMLPRegressor((16,), epochs=40, validation_fraction=0.0), excuses=NETWORK)
)
