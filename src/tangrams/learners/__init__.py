"""Estimators that fit on features.

Where to look: :class:`KernelRidge` and :class:`KernelRidgeClassifier` for closed forms and leave-one-out;
:class:`KernelLogisticRegression` for a surrogate of a classifier, :class:`KernelGLM` for the paper's own;
:class:`LinearizedRegressor` for what training the linearised network would predict, :class:`KernelGradientFlow` for
the same at any time, from any start, and for ensembles; :class:`FarthestPointClustering` with :func:`keep_heads`,
:func:`keep_random_members` or :func:`thin_largest` to prune a training set;
:class:`PoisonFilter` for samples that contradict their class; :class:`CascadeClassifier` and :class:`CascadeRegressor`
for deep polyharmonic splines, trained by :class:`CascadeSolver`.
All judge their ``X`` in :func:`as_features`.
"""

from tangrams.learners.base import HasGram, KernelMixin, as_features, as_samples, as_targets
from tangrams.learners.cascade import CascadeClassifier, CascadeRegressor
from tangrams.learners.cascade_solver import CascadeSolver, CascadeStep
from tangrams.learners.farthest_point import FarthestPointClustering, self_maximal
from tangrams.learners.kernel_flow import KernelGradientFlow
from tangrams.learners.kernel_glm import KernelGLM
from tangrams.learners.kernel_logistic_regression import KernelLogisticRegression
from tangrams.learners.kernel_ridge import KernelRidge, KernelRidgeClassifier
from tangrams.learners.linearized_regressor import LinearizedRegressor
from tangrams.learners.poison_filter import PoisonFilter
from tangrams.learners.pruning import keep_heads, keep_random_members, thin_largest

__all__ = [
    "CascadeClassifier",
    "CascadeRegressor",
    "CascadeSolver",
    "CascadeStep",
    "FarthestPointClustering",
    "HasGram",
    "KernelGLM",
    "KernelGradientFlow",
    "KernelLogisticRegression",
    "KernelMixin",
    "KernelRidge",
    "KernelRidgeClassifier",
    "LinearizedRegressor",
    "PoisonFilter",
    "as_features",
    "as_samples",
    "as_targets",
    "keep_heads",
    "keep_random_members",
    "self_maximal",
    "thin_largest",
]
