"""Measure and show: attribution, spectra, fidelity, layers, plots.

:func:`surrogate_fidelity` says how well a kernel model stands for a network, :func:`kernel_attribution` what each
training sample adds to its logits, :func:`ntk_relative_error` and its neighbours how well a scalar kernel stands for
the full one.
:func:`prediction_change`, :func:`relation`, :func:`learning_difficulty` and :class:`ForgettingTracker` are about how
samples teach one another. :func:`boundary_distances` says how far samples are from another answer,
:func:`layer_health` which layers look unlike those of a healthy network. :func:`match_pointwise` and
:func:`match_posterior` say how equal two kernels are.
"""

from tangrams.lens.boundary import BoundaryAttack, BoundaryDistances, boundary_attack, boundary_distances
from tangrams.lens.fidelity import Fidelity, surrogate_fidelity
from tangrams.lens.kernel_attribution import Retrieval, attribution_precision_recall, kernel_attribution, top_similar
from tangrams.lens.kernel_matching import (
    MatchReport,
    PointwiseMatch,
    match_pointwise,
    match_posterior,
    posterior_mean,
    zonal,
)
from tangrams.lens.layers import LayerHealth, layer_health
from tangrams.lens.learning_dynamics import (
    EventScore,
    ForgettingTracker,
    Relation,
    error_l2_norm,
    learning_difficulty,
    predict_forgetting,
    prediction_change,
    relation,
    score_events,
)
from tangrams.lens.ntk_quality import RegressionGap, kernel_regression_gap, max_eig_ratio, ntk_relative_error

__all__ = [
    "BoundaryAttack",
    "BoundaryDistances",
    "EventScore",
    "Fidelity",
    "ForgettingTracker",
    "LayerHealth",
    "MatchReport",
    "PointwiseMatch",
    "RegressionGap",
    "Relation",
    "Retrieval",
    "attribution_precision_recall",
    "boundary_attack",
    "boundary_distances",
    "error_l2_norm",
    "kernel_attribution",
    "kernel_regression_gap",
    "layer_health",
    "learning_difficulty",
    "match_pointwise",
    "match_posterior",
    "max_eig_ratio",
    "ntk_relative_error",
    "posterior_mean",
    "predict_forgetting",
    "prediction_change",
    "relation",
    "score_events",
    "surrogate_fidelity",
    "top_similar",
    "zonal",
]
