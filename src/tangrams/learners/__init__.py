"""Estimators that fit on features.

Where to look: :class:`KernelRidge` and :class:`KernelRidgeClassifier` for closed forms and leave-one-out,
:class:`RandomFeatureRidge` on k random features where n is large;
:class:`KernelLogisticRegression` for a surrogate of a classifier, :class:`KernelGLM` for the paper's own;
:class:`LinearizedRegressor` for what training the linearised network would predict, :class:`KernelGradientFlow` for
the same at any time, from any start, and for ensembles; :class:`FarthestPointClustering` with :func:`keep_heads`,
:func:`keep_random_members` or :func:`thin_largest` to prune a training set;
:class:`PoisonFilter` for samples that contradict their class; :class:`CascadeClassifier` and :class:`CascadeRegressor`
for deep polyharmonic splines, trained by :class:`CascadeSolver`.
Which samples to label next is asked of :mod:`tangrams.learners.selection`: :class:`LargestClusterMaxDistance` first;
:class:`ActiveLearningLoop` measures what a selection is worth, on :class:`TabularMLPRegressor` as the paper does.
:class:`SketchedLeastSquares` for regressions with very many rows, :class:`JoinRegression` for columns that several
parties hold, :class:`SketchedRidgeEnsemble` for those with very many features: it tunes itself and gives intervals.
:class:`TangentClassifier` fine-tunes the linearisation of a network, :class:`TangentRidgeClassifier` solves for it,
:class:`TAFTClassifier` does so with the last blocks of a transformer, :class:`PrivateTangentClassifier` with noise.
:class:`TangentComposition` puts several together in one pass, and :class:`ShardedTangentClassifier` has one per shard,
each of which can be forgotten.
:class:`FunctionalSGD` descends on a function step by step; :class:`MAML`, :class:`FirstOrderMAML` and
:class:`KernelMAML` learn a start for few-shot tasks.
:mod:`tangrams.learners.distillation` learns a few images that teach networks as the real ones do.
All judge their ``X`` in :func:`as_features`.
"""

from tangrams.learners.base import HasGram, KernelMixin, as_features, as_samples, as_targets
from tangrams.learners.cascade import CascadeClassifier, CascadeRegressor
from tangrams.learners.cascade_solver import CascadeSolver, CascadeStep
from tangrams.learners.farthest_point import FarthestPointClustering, self_maximal
from tangrams.learners.functional_sgd import FunctionalSGD
from tangrams.learners.join_regression import JoinRegression
from tangrams.learners.kernel_flow import KernelGradientFlow
from tangrams.learners.kernel_glm import KernelGLM
from tangrams.learners.kernel_logistic_regression import KernelLogisticRegression
from tangrams.learners.kernel_ridge import KernelRidge, KernelRidgeClassifier
from tangrams.learners.linearized_regressor import LinearizedRegressor
from tangrams.learners.maml import MAML, FirstOrderMAML, KernelMAML
from tangrams.learners.poison_filter import PoisonFilter
from tangrams.learners.privacy import FullBatchAccountant, PrivacyAccountant, PrivacyBudgetError, SubsampledAccountant
from tangrams.learners.private_tangent import PrivateTangentClassifier
from tangrams.learners.pruning import keep_heads, keep_random_members, thin_largest
from tangrams.learners.random_feature_ridge import RandomFeatureRidge
from tangrams.learners.selection import (
    BAIT,
    ACSGradientFeatures,
    ACSHyperRandomFeatures,
    ACSRandomFeatures,
    ActiveLearningCurve,
    ActiveLearningLoop,
    BatchSelector,
    FrankWolfe,
    KMeansPlusPlus,
    LargestClusterMaxDistance,
    MaxDeterminant,
    MaxDiagonal,
    MaxDistance,
    PoolModeLoop,
    PosteriorFeatures,
    RandomSelection,
    RegressionErrors,
    UnitDiagonal,
    sketched_gradients,
)
from tangrams.learners.sharded_tangent import ShardedTangentClassifier
from tangrams.learners.sketched_least_squares import (
    RankDeficientSketchError,
    SketchedLeastSquares,
    linf_error_ratio,
    sketched_lstsq,
)
from tangrams.learners.sketched_ridge import (
    DegenerateGCVWarning,
    SketchedRidgeEnsemble,
    sign_error,
    squared_error,
)
from tangrams.learners.sketched_ridge_theory import equivalent_penalty, row_sketched_gcv, sketching_excess
from tangrams.learners.tabular_mlp import TabularMLPRegressor
from tangrams.learners.taft_classifier import TAFTClassifier
from tangrams.learners.tangent_classifier import TangentClassifier
from tangrams.learners.tangent_composition import TangentComposition
from tangrams.learners.tangent_ridge import TangentRidgeClassifier
from tangrams.learners.tangent_training import TangentTraining, norm_penalty, square_penalty

__all__ = [
    "BAIT",
    "MAML",
    "ACSGradientFeatures",
    "ACSHyperRandomFeatures",
    "ACSRandomFeatures",
    "ActiveLearningCurve",
    "ActiveLearningLoop",
    "BatchSelector",
    "CascadeClassifier",
    "CascadeRegressor",
    "CascadeSolver",
    "CascadeStep",
    "DegenerateGCVWarning",
    "FarthestPointClustering",
    "FirstOrderMAML",
    "FrankWolfe",
    "FullBatchAccountant",
    "FunctionalSGD",
    "HasGram",
    "JoinRegression",
    "KMeansPlusPlus",
    "KernelGLM",
    "KernelGradientFlow",
    "KernelLogisticRegression",
    "KernelMAML",
    "KernelMixin",
    "KernelRidge",
    "KernelRidgeClassifier",
    "LargestClusterMaxDistance",
    "LinearizedRegressor",
    "MaxDeterminant",
    "MaxDiagonal",
    "MaxDistance",
    "PoisonFilter",
    "PoolModeLoop",
    "PosteriorFeatures",
    "PrivacyAccountant",
    "PrivacyBudgetError",
    "PrivateTangentClassifier",
    "RandomFeatureRidge",
    "RandomSelection",
    "RankDeficientSketchError",
    "RegressionErrors",
    "ShardedTangentClassifier",
    "SketchedLeastSquares",
    "SketchedRidgeEnsemble",
    "SubsampledAccountant",
    "TAFTClassifier",
    "TabularMLPRegressor",
    "TangentClassifier",
    "TangentComposition",
    "TangentRidgeClassifier",
    "TangentTraining",
    "UnitDiagonal",
    "as_features",
    "as_samples",
    "as_targets",
    "equivalent_penalty",
    "keep_heads",
    "keep_random_members",
    "linf_error_ratio",
    "norm_penalty",
    "row_sketched_gcv",
    "self_maximal",
    "sign_error",
    "sketched_gradients",
    "sketched_lstsq",
    "sketching_excess",
    "square_penalty",
    "squared_error",
    "thin_largest",
]
