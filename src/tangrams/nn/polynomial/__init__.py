"""Polynomial networks: products of layers, as wide as each other.

:class:`ProductBlock` multiplies any branches. :class:`CCP` multiplies one affine map of the input after another,
:class:`NCP` nests them; their kernels at infinite width are :class:`~tangrams.kernels.ntk.CCPNTK` and
:class:`~tangrams.kernels.ntk.NCPNTK`.
"""

from tangrams.nn.polynomial.ccp import CCP
from tangrams.nn.polynomial.ncp import NCP
from tangrams.nn.polynomial.product_block import ProductBlock

__all__ = ["CCP", "NCP", "ProductBlock"]
