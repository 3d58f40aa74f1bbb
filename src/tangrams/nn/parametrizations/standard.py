"""The parametrization that torch ships."""

from __future__ import annotations

from tangrams.nn.parametrizations.base import FanParametrization
from tangrams.nn.parametrizations.fans import Fans
from tangrams.nn.parametrizations.plan import Scaling


class Standard(FanParametrization):
    r"""Weights as torch draws them, one learning rate for all: ``σ = fan_in^{-1/2}``, ``η = 1``.

    Wide networks blow up at a fixed rate; at a rate that falls as ``1 / width`` they are kernel machines [017].
    """

    def law(self, fans: Fans, base: Fans | None) -> Scaling:
        """The fan that torch draws by, and nothing else."""
        return Scaling((fans.reset_fan / (base.reset_fan if base else 1)) ** -0.5)

    def tied_multiplier(self, lookup: Fans, readout: Fans, base: tuple[Fans, Fans] | None) -> float:
        """One: a tied readout in torch has no multiplier."""
        return 1.0
