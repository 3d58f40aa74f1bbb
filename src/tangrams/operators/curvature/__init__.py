"""Second derivatives as matrices that are never formed.

:class:`HessianOperator` of any scalar function of named parameters, :class:`GaussNewtonOperator` of a loss of outputs.
Both take plain functions; :func:`tangrams.lens.loss_hessian` and :func:`tangrams.lens.loss_gauss_newton` make them of a
network. :class:`PreconditionedCurvature` is one of them as an optimiser sees it. The Gram of tangent features,
``J Jᵀ``, is ``phi.matrix(x) @ phi.matrix(x).mT``.
"""

from tangrams.operators.curvature.base import CurvatureOperator
from tangrams.operators.curvature.gauss_newton import GaussNewtonOperator
from tangrams.operators.curvature.hessian import HessianOperator
from tangrams.operators.curvature.preconditioned import PreconditionedCurvature

__all__ = ["CurvatureOperator", "GaussNewtonOperator", "HessianOperator", "PreconditionedCurvature"]
