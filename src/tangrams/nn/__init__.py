"""Layers, heads, losses, parametrizations and optimisers.

:class:`NTKLinear` and :class:`NTKConv2d` are layers in NTK parametrisation.
"""

from tangrams.nn.ntk_linear import NTKConv2d, NTKLinear

__all__ = ["NTKConv2d", "NTKLinear"]
