"""Optimisers.

:class:`SpectralSGD` makes every update of a weight as large as the spectral condition asks, :class:`FrobeniusSGD` the
same by a cheaper norm. :class:`AdaBelief` is Adam with the gradient's variance in the place of its square. Rates per
parameter for torch's own optimisers come from :mod:`tangrams.nn.parametrizations`.
"""

from tangrams.nn.optim.adabelief import AdaBelief
from tangrams.nn.optim.spectral_sgd import FrobeniusSGD, SpectralSGD

__all__ = ["AdaBelief", "FrobeniusSGD", "SpectralSGD"]
