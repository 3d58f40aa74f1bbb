"""Measure and show: attribution, spectra, fidelity, layers, plots.

:func:`surrogate_fidelity` says how well a kernel model stands for a network, :func:`kernel_attribution` what each
training sample adds to its logits, :func:`ntk_relative_error` and its neighbours how well a scalar kernel stands for
the full one.
:func:`prediction_change`, :func:`relation`, :func:`learning_difficulty` and :class:`ForgettingTracker` are about how
samples teach one another. :func:`boundary_distances` says how far samples are from another answer,
:func:`layer_health` which layers look unlike those of a healthy network.
:func:`zonal_spectrum` says which frequencies a kernel learns first. :func:`match_pointwise` and :func:`match_posterior`
say how equal two kernels are. :func:`coordinate_check` says whether activations keep their size over widths,
:func:`spectral_report` whether training moved each layer by as much as the spectral condition asks,
:func:`sharpness` and :class:`SharpnessTracker` how its loss bends, :func:`transfer_curve` whether a rate fits all
sizes.
:func:`gamma_statistics` and :func:`dead_channels` say which channels BatchNorm has switched off,
:class:`ActivationMemoryMeter` what a forward pass holds for the backward pass.
:func:`sensitivity` says how much a prediction moves with its input, :func:`sensitivity_parts` what drives it.
:func:`analogy_accuracy` asks word vectors for the fourth word.

What the study asks: :func:`smoother_explanations` which samples stand behind a prediction,
:func:`find_label_errors` which labels look wrong, :func:`exact_duplicates`, :func:`near_duplicates` and
:func:`subset_curve` what is redundant, :func:`measure_learning_curve` whether more data would help. :func:`ridge_risk`
predicts the error of ridge regression for any number of samples and features, from a known spectrum or a sample.
"""

from tangrams.lens.activation_memory import ActivationMemoryMeter
from tangrams.lens.backgrounds import blur, fade, grain
from tangrams.lens.batchnorm_features import (
    GammaStatistics,
    dead_channels,
    gamma_statistics,
    small_gammas_zeroed,
    zero_fractions,
)
from tangrams.lens.boundary import BoundaryAttack, BoundaryDistances, boundary_attack, boundary_distances
from tangrams.lens.coordinate_check import CoordinateCheck, coordinate_check
from tangrams.lens.eigenframework import (
    Eigenstructure,
    EigenTask,
    GramTask,
    Risk,
    TaskExponents,
    measure_exponents,
    optimal_fitting_ratio,
    optimal_ridge,
    projected_predictions,
    ridge_risk,
    solve_gamma,
)
from tangrams.lens.ensemble_complexity import (
    PermutationMoments,
    ensemble_size,
    midpoint_threshold,
    permutation_moments,
    sign_threshold,
)
from tangrams.lens.fidelity import Fidelity, surrogate_fidelity
from tangrams.lens.kernel_attribution import Retrieval, attribution_precision_recall, kernel_attribution, top_similar
from tangrams.lens.kernel_mass import KernelMass, gaussian_kernel_mass
from tangrams.lens.kernel_matching import (
    MatchReport,
    PointwiseMatch,
    match_pointwise,
    match_posterior,
    posterior_mean,
    zonal,
)
from tangrams.lens.label_errors import (
    ErrorCount,
    LabelCalibration,
    LabelErrors,
    calibrate_label_errors,
    count_errors,
    find_label_errors,
    find_target_errors,
)
from tangrams.lens.layers import LayerHealth, layer_health
from tangrams.lens.learning_curve import LearningCurve, RiskLaw, fit_risk_law, measure_learning_curve
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
from tangrams.lens.redundancy import (
    NearDuplicates,
    SubsetCurve,
    exact_duplicates,
    k_centre_order,
    near_duplicates,
    subset_curve,
)
from tangrams.lens.robustness import (
    MinNormFit,
    RankDeficientError,
    SensitivityParts,
    interaction_matrix,
    min_norm_fit,
    sensitivity,
    sensitivity_parts,
    universal_sensitivity,
)
from tangrams.lens.sample_distances import sinkhorn_divergence, squared_mmd
from tangrams.lens.sharpness import (
    Sharpness,
    SharpnessTracker,
    StochasticLossError,
    TraceEstimate,
    directional_sharpness,
    loss_gauss_newton,
    loss_hessian,
    sharpness,
    step_scales,
    trace_estimate,
)
from tangrams.lens.shortcut import (
    BiasReport,
    InterventionReport,
    KernelShortcutProbe,
    ShortcutMap,
    agreements,
    background_sensitivity,
    bayes_decision,
    intervene,
    linear_discriminant,
    reliance,
    shortcut_bias,
    shortcut_map,
)
from tangrams.lens.smoother import SmootherExplanations, smoother_explanations
from tangrams.lens.spectra import PowerLawWindows, fresh_spectrum, power_law_windows, weight_spectrum
from tangrams.lens.spectral_bias import (
    band_psnr,
    degree_energy,
    frequency_error,
    gegenbauer,
    harmonics,
    radial_power,
    zonal_spectrum,
)
from tangrams.lens.spectral_condition import LayerMotion, rms_norm, spectral_report
from tangrams.lens.transfer import SuperConsistency, TransferCurve, super_consistency, transfer_curve
from tangrams.lens.word_analogies import analogy_accuracy

__all__ = [
    "ActivationMemoryMeter",
    "BiasReport",
    "BoundaryAttack",
    "BoundaryDistances",
    "CoordinateCheck",
    "EigenTask",
    "Eigenstructure",
    "ErrorCount",
    "EventScore",
    "Fidelity",
    "ForgettingTracker",
    "GammaStatistics",
    "GramTask",
    "InterventionReport",
    "KernelMass",
    "KernelShortcutProbe",
    "LabelCalibration",
    "LabelErrors",
    "LayerHealth",
    "LayerMotion",
    "LearningCurve",
    "MatchReport",
    "MinNormFit",
    "NearDuplicates",
    "PermutationMoments",
    "PointwiseMatch",
    "PowerLawWindows",
    "RankDeficientError",
    "RegressionGap",
    "Relation",
    "Retrieval",
    "Risk",
    "RiskLaw",
    "SensitivityParts",
    "Sharpness",
    "SharpnessTracker",
    "ShortcutMap",
    "SmootherExplanations",
    "StochasticLossError",
    "SubsetCurve",
    "SuperConsistency",
    "TaskExponents",
    "TraceEstimate",
    "TransferCurve",
    "agreements",
    "analogy_accuracy",
    "attribution_precision_recall",
    "background_sensitivity",
    "band_psnr",
    "bayes_decision",
    "blur",
    "boundary_attack",
    "boundary_distances",
    "calibrate_label_errors",
    "coordinate_check",
    "count_errors",
    "dead_channels",
    "degree_energy",
    "directional_sharpness",
    "ensemble_size",
    "error_l2_norm",
    "exact_duplicates",
    "fade",
    "find_label_errors",
    "find_target_errors",
    "fit_risk_law",
    "frequency_error",
    "fresh_spectrum",
    "gamma_statistics",
    "gaussian_kernel_mass",
    "gegenbauer",
    "grain",
    "harmonics",
    "interaction_matrix",
    "intervene",
    "k_centre_order",
    "kernel_attribution",
    "kernel_regression_gap",
    "layer_health",
    "learning_difficulty",
    "linear_discriminant",
    "loss_gauss_newton",
    "loss_hessian",
    "match_pointwise",
    "match_posterior",
    "max_eig_ratio",
    "measure_exponents",
    "measure_learning_curve",
    "midpoint_threshold",
    "min_norm_fit",
    "near_duplicates",
    "ntk_relative_error",
    "optimal_fitting_ratio",
    "optimal_ridge",
    "permutation_moments",
    "posterior_mean",
    "power_law_windows",
    "predict_forgetting",
    "prediction_change",
    "projected_predictions",
    "radial_power",
    "relation",
    "reliance",
    "ridge_risk",
    "rms_norm",
    "score_events",
    "sensitivity",
    "sensitivity_parts",
    "sharpness",
    "shortcut_bias",
    "shortcut_map",
    "sign_threshold",
    "sinkhorn_divergence",
    "small_gammas_zeroed",
    "smoother_explanations",
    "solve_gamma",
    "spectral_report",
    "squared_mmd",
    "step_scales",
    "subset_curve",
    "super_consistency",
    "surrogate_fidelity",
    "top_similar",
    "trace_estimate",
    "transfer_curve",
    "universal_sensitivity",
    "weight_spectrum",
    "zero_fractions",
    "zonal",
    "zonal_spectrum",
]
