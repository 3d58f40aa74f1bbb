"""The risk of ridge regression on kernels and random features, in closed form [006].

A task is an :class:`Eigenstructure`: :class:`EigenTask` where spectrum and coefficients are known, :class:`GramTask`
where there is a sample. :func:`ridge_risk` predicts train and test error for any number of samples n, of features k
and any ridge; :func:`optimal_ridge` the best of them. :func:`projected_predictions` tries k features out on a kernel.
"""

from tangrams.lens.eigenframework.eigen_task import EigenTask
from tangrams.lens.eigenframework.exponents import TaskExponents, measure_exponents
from tangrams.lens.eigenframework.gram_task import GramTask
from tangrams.lens.eigenframework.projected import projected_predictions
from tangrams.lens.eigenframework.risk import Risk, ridge_risk, solve_gamma
from tangrams.lens.eigenframework.structure import Eigenstructure
from tangrams.lens.eigenframework.tuned import optimal_fitting_ratio, optimal_ridge

__all__ = [
    "EigenTask",
    "Eigenstructure",
    "GramTask",
    "Risk",
    "TaskExponents",
    "measure_exponents",
    "optimal_fitting_ratio",
    "optimal_ridge",
    "projected_predictions",
    "ridge_risk",
    "solve_gamma",
]
