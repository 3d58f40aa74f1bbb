"""Networks linearised in their weights, and directions in weight space.

:func:`linearize` makes a module of any network: value and tangent in one pass, trained by its direction alone.
:class:`TangentVector` is such a direction, with an algebra, saved with the fingerprint of its base point, and
:class:`TangentSum` a weighted sum of several, from which each can be taken out again.
:mod:`~tangrams.nn.tangent.rules` has the tangent rules of single layers as functions of tensors.
"""

from tangrams.nn.tangent import rules
from tangrams.nn.tangent.dual import Dual
from tangrams.nn.tangent.errors import BasePointMismatchError, EmptyCompositionError, UnsupportedLayerError
from tangrams.nn.tangent.linearized_module import LinearizedModule, linearize
from tangrams.nn.tangent.tangent_sum import TangentSum
from tangrams.nn.tangent.vector import TangentVector

__all__ = [
    "BasePointMismatchError",
    "Dual",
    "EmptyCompositionError",
    "LinearizedModule",
    "TangentSum",
    "TangentVector",
    "UnsupportedLayerError",
    "linearize",
    "rules",
]
