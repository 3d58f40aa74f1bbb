"""Optimisers.

:class:`SpectralSGD` makes every update of a weight as large as the spectral condition asks, :class:`FrobeniusSGD` the
same by a cheaper norm. Rates per parameter for torch's own optimisers come from :mod:`tangrams.nn.parametrizations`.
"""

from tangrams.nn.optim.spectral_sgd import FrobeniusSGD, SpectralSGD

__all__ = ["FrobeniusSGD", "SpectralSGD"]
