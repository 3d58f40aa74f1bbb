"""How the weights of a network start and learn as its width grows: one interface for all conventions.

``MaximalUpdate().apply(model, base)`` (μP) or ``Spectral().apply(model)`` scale the initial weights of any model of
torch's layers, and return a plan whose ``sgd(lr)`` and ``adam(lr)`` are parameter groups. :class:`Standard` is what
torch does, :class:`NeuralTangent` the lazy one, :class:`MeanField` that of one hidden layer. :class:`ABC` is the whole
family on perceptrons, with the theorem that sorts it. :func:`spectral_gaussian_`, :func:`spectral_orthogonal_` and
:func:`spectral_normalized_` initialise one weight by the spectral condition.
"""

from tangrams.nn.parametrizations.abc import ABC, Verdict
from tangrams.nn.parametrizations.base import FanParametrization, Parametrization
from tangrams.nn.parametrizations.errors import (
    AlreadyParametrizedError,
    BaseShapeError,
    FanError,
    UnstableParametrizationWarning,
)
from tangrams.nn.parametrizations.fans import Fans, Role, bias_fans, gain_fans, lookup_fans, matrix_fans
from tangrams.nn.parametrizations.maximal_update import MaximalUpdate, MeanField
from tangrams.nn.parametrizations.neural_tangent import NeuralTangent
from tangrams.nn.parametrizations.plan import Scaling, WidthPlan, WidthRow
from tangrams.nn.parametrizations.spectral import (
    Spectral,
    spectral_gaussian_,
    spectral_normalized_,
    spectral_orthogonal_,
)
from tangrams.nn.parametrizations.standard import Standard

__all__ = [
    "ABC",
    "AlreadyParametrizedError",
    "BaseShapeError",
    "FanError",
    "FanParametrization",
    "Fans",
    "MaximalUpdate",
    "MeanField",
    "NeuralTangent",
    "Parametrization",
    "Role",
    "Scaling",
    "Spectral",
    "Standard",
    "UnstableParametrizationWarning",
    "Verdict",
    "WidthPlan",
    "WidthRow",
    "bias_fans",
    "gain_fans",
    "lookup_fans",
    "matrix_fans",
    "spectral_gaussian_",
    "spectral_normalized_",
    "spectral_orthogonal_",
]
