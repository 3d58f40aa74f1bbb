r"""The spectral condition: a weight and its updates have spectral norm ``\sqrt{fan_out / fan_in}``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tangrams.nn.parametrizations.base import FanParametrization
from tangrams.nn.parametrizations.errors import FanError
from tangrams.nn.parametrizations.fans import Fans
from tangrams.nn.parametrizations.plan import Scaling


class Spectral(FanParametrization):
    r"""μP by one rule for all shapes, with or without a base [115].

    .. math:: σ = \frac{s}{\sqrt{fan_{in}}} \min\{1, \sqrt{fan_{out} / fan_{in}}\}, \quad
        η_{SGD} = out / fan_{in}, \quad η_{Adam} = 1 / fan_{in}

    so that ``‖W‖`` and ``‖ΔW‖`` are of order ``\sqrt{fan_out / fan_in}`` and features of root mean square one move by
    as much. A kernel's window belongs to its fan-in. In a grouped layer fans count one group, and ``out`` all of them:
    the output's gradient is spread over every group. Rates assume that the loss's gradient in a feature vector has
    norm of order ``fan^{-1/2}``, as it has when every layer fulfils the condition.

    Args:
        sigma: s, the gain of a fresh draw; not used where there is a base.

    Raises:
        ValueError: if sigma is not positive.
    """

    def __init__(self, sigma: float = 1.0) -> None:
        if not sigma > 0:
            raise ValueError(f"Spectral needs sigma > 0, got {sigma}")
        self.sigma = sigma

    def law(self, fans: Fans, base: Fans | None) -> Scaling:
        """The formulas above, or their ratio to the base's."""
        own = _law(fans)
        if base is None:
            return Scaling(self.sigma * own.std, 1.0, own.sgd, own.adam)
        of_base = _law(base)
        return Scaling(own.std / of_base.std, 1.0, own.sgd / of_base.sgd, base.fan_in / fans.fan_in)


def _law(fans: Fans) -> Scaling:
    std = fans.fan_in**-0.5 * min(1.0, math.sqrt(fans.fan_out / fans.fan_in))
    return Scaling(std, 1.0, fans.out_features / fans.fan_in, 1 / fans.fan_in)


def spectral_gaussian_(weight: Tensor, sigma: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Fill with a Gaussian whose spectral norm is of order ``σ \sqrt{fan_out / fan_in}`` [115].

    Entries have the standard deviation σ_l of :class:`Spectral`, so the norm is about
    ``σ_l (\sqrt{fan_out} + \sqrt{fan_in})`` : one to two times the target.

    Args:
        weight: ``(out, in, *window)``; in place.
        sigma: σ.
        generator: draws; a fixed seed by default.
    """
    fan_out, fan_in = _matrix("spectral_gaussian_", weight, sigma)
    return _fill(weight, _draw(weight, generator) * sigma * fan_in**-0.5 * min(1.0, math.sqrt(fan_out / fan_in)))


def spectral_orthogonal_(weight: Tensor, sigma: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Fill with a random semi-orthogonal matrix times ``σ \sqrt{fan_out / fan_in}``, its only singular value [115].

    Args:
        weight: ``(out, in, *window)``; in place.
        sigma: σ.
        generator: draws; a fixed seed by default.
    """
    fan_out, fan_in = _matrix("spectral_orthogonal_", weight, sigma)
    draw = _draw(weight, generator).double()
    q, r = torch.linalg.qr(draw if fan_out >= fan_in else draw.mT)
    q = q * r.diagonal().sgn()  # without this q is not uniform over the orthogonal matrices
    return _fill(weight, (q if fan_out >= fan_in else q.mT) * sigma * math.sqrt(fan_out / fan_in))


def spectral_normalized_(weight: Tensor, sigma: float = 1.0, *, generator: torch.Generator | None = None) -> Tensor:
    r"""Fill with a Gaussian scaled to the spectral norm ``σ \sqrt{fan_out / fan_in}`` exactly [115].

    Args:
        weight: ``(out, in, *window)``; in place.
        sigma: σ.
        generator: draws; a fixed seed by default.
    """
    fan_out, fan_in = _matrix("spectral_normalized_", weight, sigma)
    draw = _draw(weight, generator).double()
    norm = torch.linalg.matrix_norm(draw, ord=2)
    return _fill(weight, draw * (sigma * math.sqrt(fan_out / fan_in) / norm))


def _matrix(who: str, weight: Tensor, sigma: float) -> tuple[int, int]:
    if weight.ndim < 2 or weight.numel() == 0:
        raise FanError(f"{who} needs a weight of two or more axes, got shape {tuple(weight.shape)}")
    if not sigma > 0:
        raise ValueError(f"{who} needs sigma > 0, got {sigma}")
    return weight.shape[0], weight.numel() // weight.shape[0]


def _draw(weight: Tensor, generator: torch.Generator | None) -> Tensor:
    generator = generator or torch.Generator().manual_seed(0)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    return torch.randn(weight.flatten(1).shape, generator=generator, dtype=dtype, device=generator.device)


def _fill(weight: Tensor, matrix: Tensor) -> Tensor:
    with torch.no_grad():
        return weight.copy_(matrix.reshape(weight.shape))
