"""Data → feature matrix: tangent, random, learned and hand-made features.

``TangentFeatures`` are a network's gradients; ``RandomFeatures`` the units of a random layer;
``PositiveRandomFeatures``, ``TrigonometricRandomFeatures`` and ``SoftmaxRandomFeatures`` estimate a kernel, with
directions coupled as :mod:`tangrams.features.random` says.
``phi >> psi`` puts a map or a sketch on the features of another, ``phi | psi`` puts them side by side.
"""

from tangrams.features.base import FeatureMap
from tangrams.features.chain import Chain
from tangrams.features.errors import TangentError
from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import Output, logits_of
from tangrams.features.preflight import Preflight, preflight
from tangrams.features.random import (
    BiasedRandomAttentionFeatures,
    PositiveRandomFeatures,
    RandomAttentionFeatures,
    RandomFeatures,
    RandomSequenceFeatures,
    ShallowTangentFeatures,
    SoftmaxRandomFeatures,
    TrigonometricRandomFeatures,
)
from tangrams.features.stack import Stack
from tangrams.features.tangent.features import TangentFeatures
from tangrams.features.tangent.plan import Plan

__all__ = [
    "BiasedRandomAttentionFeatures",
    "Chain",
    "FeatureMap",
    "ModelRef",
    "Output",
    "Plan",
    "PositiveRandomFeatures",
    "Preflight",
    "RandomAttentionFeatures",
    "RandomFeatures",
    "RandomSequenceFeatures",
    "ShallowTangentFeatures",
    "SoftmaxRandomFeatures",
    "Stack",
    "TangentError",
    "TangentFeatures",
    "TrigonometricRandomFeatures",
    "logits_of",
    "preflight",
]
