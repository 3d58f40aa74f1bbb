"""Every learner joins its role's suite, and passes all of scikit-learn's checks without an excuse."""

from tangrams.learners import (
    FarthestPointClustering,
    KernelGLM,
    KernelLogisticRegression,
    LinearizedRegressor,
    PoisonFilter,
    RandomFeatureRidge,
)
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

TestLearners = estimator_conformance(
    Case(LinearizedRegressor),
    Case(lambda: LinearizedRegressor(delta=1e-3, time=10.0), name="LinearizedRegressor-flow"),
    Case(KernelGLM),
    Case(KernelLogisticRegression),
    Case(lambda: FarthestPointClustering(3)),
    Case(PoisonFilter),
    Case(
        lambda: RandomFeatureRidge(num_features=16),
        excuses={"check_stored_rows_are_never_held_whole": "columns that are repeated meet other random weights"},
    ),
)
