"""The parametrization whose wide limit is the neural tangent kernel."""

from __future__ import annotations

import math

from tangrams.nn.parametrizations.base import FanParametrization
from tangrams.nn.parametrizations.fans import Fans
from tangrams.nn.parametrizations.plan import Scaling


class NeuralTangent(FanParametrization):
    r"""Standard normal weights under a multiplier: ``W = w / \sqrt{fan_in}``, ``η = 1`` [017, 055].

    Every layer moves the output by Θ(1) a step, and the features by no more than ``width^{-1/2}``: the wide limit is
    kernel gradient descent. For Adam the same is reached by ``η = (fan_in · out_features)^{-1/2}``: a step of ±η in
    every entry moves a feature by ``η \sqrt{fan_in}``, and the output feels the ``out_features`` of them with
    weights of size ``out_features^{-1/2}`` and one sign.
    """

    def law(self, fans: Fans, base: Fans | None) -> Scaling:
        """Ratios of fans; the base's are one where there is none."""
        fan_in = fans.fan_in / (base.fan_in if base else 1)
        outputs = fans.out_features / (base.out_features if base else 1)
        return Scaling(1.0, fan_in**-0.5, 1.0, 1 / math.sqrt(fan_in * outputs))
