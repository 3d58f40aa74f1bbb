"""Which samples of a pool to label next: the parts of deep batch active learning [007].

A method is three parts, put together by hand. **Features**: ``TangentFeatures(model) >> KhatriRaoSketch(512)`` of the
trained network (the paper's choice), ``TangentFeatures(model, params=[last_layer])``, the inputs themselves, several
networks side by side (``phi | psi``); or a kernel such as ``FullyConnectedNTK``, ``FullyConnectedNNGP``,
``LaplaceKernel``. **Transformations**, fitted on the labelled samples and chained by scikit-learn's ``make_pipeline``:
:class:`UnitDiagonal`, :class:`PosteriorFeatures`, :class:`ACSRandomFeatures`, :class:`ACSHyperRandomFeatures`,
:class:`ACSGradientFeatures`, and the sketches of :mod:`tangrams.operators`; for kernels ``ScaledKernel``,
``PosteriorKernel``, ``SumKernel`` and ``ProductKernel``. **Selection**: ``selector.fit(pool).indices_`` by the pool
alone (P mode), ``selector.fit(pool, labelled=train).indices_`` with the labelled samples (TP mode).

Take :class:`LargestClusterMaxDistance` in TP mode. :class:`MaxDistance` covers, :class:`KMeansPlusPlus` draws;
:class:`MaxDiagonal`, :class:`MaxDeterminant` and :class:`BAIT` go by posterior variance, :class:`FrankWolfe` matches
the pool's sum, :class:`RandomSelection` is what to beat. :class:`ActiveLearningLoop` (TP) and :class:`PoolModeLoop` (P)
train, choose and label in turns, and measure.
"""

from tangrams.learners.selection.acs_gradient import ACSGradientFeatures
from tangrams.learners.selection.acs_hyper import ACSHyperRandomFeatures
from tangrams.learners.selection.acs_random import ACSRandomFeatures
from tangrams.learners.selection.bait import BAIT
from tangrams.learners.selection.base import BatchSelector
from tangrams.learners.selection.frank_wolfe import FrankWolfe
from tangrams.learners.selection.kmeans_plus_plus import KMeansPlusPlus
from tangrams.learners.selection.largest_cluster import LargestClusterMaxDistance
from tangrams.learners.selection.loop import (
    ActiveLearningCurve,
    ActiveLearningLoop,
    PoolModeLoop,
    RegressionErrors,
    sketched_gradients,
)
from tangrams.learners.selection.max_determinant import MaxDeterminant
from tangrams.learners.selection.max_diagonal import MaxDiagonal
from tangrams.learners.selection.max_distance import MaxDistance
from tangrams.learners.selection.posterior import PosteriorFeatures
from tangrams.learners.selection.random_selection import RandomSelection
from tangrams.learners.selection.unit_diagonal import UnitDiagonal

__all__ = [
    "BAIT",
    "ACSGradientFeatures",
    "ACSHyperRandomFeatures",
    "ACSRandomFeatures",
    "ActiveLearningCurve",
    "ActiveLearningLoop",
    "BatchSelector",
    "FrankWolfe",
    "KMeansPlusPlus",
    "LargestClusterMaxDistance",
    "MaxDeterminant",
    "MaxDiagonal",
    "MaxDistance",
    "PoolModeLoop",
    "PosteriorFeatures",
    "RandomSelection",
    "RegressionErrors",
    "UnitDiagonal",
    "sketched_gradients",
]
