"""What can go wrong with linearised networks and tangent vectors."""

from tangrams.features.errors import TangentError


class UnsupportedLayerError(TangentError):
    """A layer has no derivative in forward mode; the message names its module and the operation."""


class BasePointMismatchError(ValueError):
    """Tangent vectors, or a vector and a network, belong to different base points or different parameters."""


class EmptyCompositionError(ValueError):
    """The last component of a composition is gone."""
