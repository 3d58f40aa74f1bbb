"""Random features: :class:`RandomFeatures` are the units of a random layer, over any coupling of their weights."""

from tangrams.features.random.couplings import Coupling, IIDCoupling
from tangrams.features.random.random_features import RandomFeatures

__all__ = ["Coupling", "IIDCoupling", "RandomFeatures"]
