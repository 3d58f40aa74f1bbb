"""Random features: :class:`RandomFeatures` are the units of a random layer, :class:`ShallowTangentFeatures` gradients.

To estimate the Gaussian kernel take :class:`TrigonometricRandomFeatures`, bounded, or
:class:`PositiveRandomFeatures`, never negative; for attention :class:`SoftmaxRandomFeatures`. How directions are drawn
together is a coupling: :class:`IIDCoupling`, :class:`OrthogonalCoupling`, :class:`SimplexCoupling` or
:class:`SimplexPlusCoupling`, turned by a :class:`HaarRotation` or, in many dimensions, a :class:`HadamardRotation`.
:class:`RandomAttentionFeatures`, :class:`BiasedRandomAttentionFeatures` and, in order,
:class:`RandomSequenceFeatures` take a query and its keys.
"""

from tangrams.features.random.attention import (
    BiasedRandomAttentionFeatures,
    RandomAttentionFeatures,
    RandomSequenceFeatures,
)
from tangrams.features.random.conformity import rf_conformity
from tangrams.features.random.couplings import (
    Coupling,
    IIDCoupling,
    OrthogonalCoupling,
    SimplexCoupling,
    SimplexPlusCoupling,
)
from tangrams.features.random.derivatives import ActivationError
from tangrams.features.random.positive import PositiveRandomFeatures, SoftmaxRandomFeatures
from tangrams.features.random.random_features import RandomFeatures
from tangrams.features.random.rotations import HaarRotation, HadamardRotation
from tangrams.features.random.shallow_tangent import ShallowTangentFeatures
from tangrams.features.random.simplex import simplex_matmul
from tangrams.features.random.trigonometric import TrigonometricRandomFeatures

__all__ = [
    "ActivationError",
    "BiasedRandomAttentionFeatures",
    "Coupling",
    "HaarRotation",
    "HadamardRotation",
    "IIDCoupling",
    "OrthogonalCoupling",
    "PositiveRandomFeatures",
    "RandomAttentionFeatures",
    "RandomFeatures",
    "RandomSequenceFeatures",
    "ShallowTangentFeatures",
    "SimplexCoupling",
    "SimplexPlusCoupling",
    "SoftmaxRandomFeatures",
    "TrigonometricRandomFeatures",
    "rf_conformity",
    "simplex_matmul",
]
