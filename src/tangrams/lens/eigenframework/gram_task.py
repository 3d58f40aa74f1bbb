"""A task as one sample shows it: no spectrum is fitted up to the sample's own size, and a power law carries on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from torch import Tensor

from tangrams.lens.eigenframework.structure import Eigenstructure
from tangrams.lens.learning_curve import RiskLaw, fit_risk_law
from tangrams.operators.ridge import GramSpectrum

WINDOWS = ((0.1, 0.9), (0.05, 0.9), (0.2, 0.9), (0.1, 0.45), (0.3, 0.9))
"""Ranges of z, in shares of the sample, in which the laws are fitted; the first is the estimate, all are its spread."""

_JOIN = 0.9
"""The share of the sample's degrees of freedom up to which its curves are measured."""

_POINTS, _BEYOND = 48, 60


@dataclass(frozen=True, eq=False)
class GramTask(Eigenstructure):
    r"""The curves of :class:`Eigenstructure` from the Gram matrix and the targets of N samples [006].

    The eigenvalues of a Gram matrix are not those of its kernel: taken for them, they promise interpolation without
    error at n = N. But the eigenframework itself says what a sample shows of its task. With μ = eig(K) and, for each
    ridge δ ≥ 0, the resolution :math:`κ = 1 / \sum_i (μ_i + δ)^{-1}`,

    .. math::
        z = N - \frac{δ}{κ}, \quad q = N - \frac{1}{κ^2 \sum_i (μ_i + δ)^{-2}}, \quad
        b_1 = κ\, y^T (K + δ)^{-1} y, \quad b_2 = \frac{y^T (K + δ)^{-2} y}{\sum_i (μ_i + δ)^{-2}}

    (b₂ is generalised cross-validation, less overfitting). Real samples are no Gaussian vectors: both errors are scaled
    so that the risk at n = N is the exact leave-one-out error, for every ridge. So what this task says of ridge
    regression around the mean target needs no spectrum for n ≤ N, and none beyond wherever the ridge keeps z ≤ 0.9 N.

    Below that resolution laws carry on: z falls like κ^(−1/α), fitted in a window and joined without a kink, and b₂
    like a + b z^−c with a, b ≥ 0. A spectrum that ends below 0.9 N needs none. How far the laws can be trusted is
    measured by the spread over :data:`WINDOWS`, and by predicting the whole sample from a part of it.

    Attributes:
        samples: N.
        trace: tr K / N.
        rank: the rank of K where it is below 0.9 N, else infinite.
        alpha: the exponent of the law of z, as that of a spectrum i^−α; NaN where there is no law.
        law: a + b z^−c; None where there is none.
    """

    samples: int
    trace: float
    rank: float
    alpha: float
    law: RiskLaw | None
    _measured: Float[Tensor, "5 g"] = field(repr=False)
    _curves: PchipInterpolator = field(repr=False)

    @classmethod
    def of(cls, spectrum: GramSpectrum, targets: Float[Tensor, "N C"]) -> GramTask:
        """Read a sample.

        Args:
            spectrum: of its Gram matrix.
            targets: columns; their mean is taken out.

        Raises:
            ValueError: for fewer than 20 samples, or targets of another number.
        """
        N = len(spectrum)
        if N < 20 or targets.shape[:1] != (N,) or targets.ndim != 2:
            raise ValueError(
                f"GramTask expects 20 or more samples and columns of targets, got {N}, {tuple(targets.shape)}"
            )
        mu, unit = spectrum.eigenvalues, spectrum.unit
        rank = int((mu > 10 * N * torch.finfo(torch.float64).eps * float(mu[-1])).sum())
        full = rank > _JOIN * N
        lowest = 1e-9
        if full:  # where N − z, which rises with the ridge, is 0.1 N
            spare = lambda s: float((math.exp(s) / (mu / unit + math.exp(s))).sum()) - (1 - _JOIN) * N  # noqa: E731
            edge: Any = brentq(spare, math.log(1e-14), math.log(1e6))
            lowest = math.exp(edge)
        deltas = torch.logspace(math.log10(lowest), 5, _POINTS, dtype=torch.float64)
        g = 1 / (mu + (deltas * unit)[:, None])  # (g, N)
        power = (spectrum.eigenvectors.mT @ (targets - targets.mean(0))).square().sum(1)
        kappa, squares = 1 / g.sum(1), g.square().sum(1)
        z = (g * mu).sum(1)
        q = N * (g - g.mean(1, keepdim=True)).square().sum(1) / squares  # N − (Σg)²/Σg², without cancelling
        first, second = kappa * (g @ power), (g.square() @ power) / squares
        out = torch.tensor([spectrum.loo_error(targets, float(delta)) for delta in deltas], dtype=torch.float64)
        scale = out * (1 - q / N) / second.clamp_min(1e-300)
        measured = torch.stack([kappa, z, q, first * scale, second * scale]).clamp_min(1e-300)
        return cls._joined(N, unit, math.inf if full else float(rank), measured, WINDOWS[0])

    @classmethod
    def _joined(cls, N: int, trace: float, rank: float, measured: Tensor, window: tuple[float, float]) -> GramTask:
        if math.isfinite(rank):
            return cls(N, trace, rank, math.nan, None, measured, _interpolant(measured))
        inside = (measured[1] >= window[0] * N) & (measured[1] <= window[1] * N * (1 + 1e-9))
        kappa, z, _, _, second = measured[:, inside]
        slope = float(np.polyfit(kappa.log().numpy(), z.log().numpy(), 1)[0])
        alpha = -1 / min(slope, -1e-3)
        law = fit_risk_law(z.tolist(), second)
        return cls(
            N, trace, rank, alpha, law, measured, _interpolant(torch.cat([_tail(measured, alpha, law), measured], 1))
        )

    def spread(self) -> list[GramTask]:
        """The same sample with its laws fitted in each of :data:`WINDOWS`; itself alone where there are no laws."""
        if self.law is None:
            return [self]
        return [self._joined(self.samples, self.trace, self.rank, self._measured, window) for window in WINDOWS]

    def resolutions(self) -> Float[Tensor, "r"]:
        """κ where z = 1, 2, … as far as it is measured: the spectrum of the kernel as the sample shows it, smoothed."""
        kappa, z = self._measured[0].log().numpy(), self._measured[1].numpy()
        ranks = np.arange(1, math.floor(z.max()) + 1)
        return torch.from_numpy(np.exp(np.interp(ranks, z[::-1], kappa[::-1])))

    def degrees(self, kappa: float) -> tuple[float, float]:
        """``(z, q)`` at κ; beyond the measured resolutions by the law."""
        if kappa == 0:
            return self.rank, self.rank
        z, q, _, _ = self._read(kappa)
        return min(z, self.rank), min(q, self.rank)

    def errors(self, kappa: float) -> tuple[float, float]:
        """``(b₁, b₂)`` at κ; beyond the measured resolutions by the law."""
        _, _, first, second = self._read(kappa)
        return first, second

    def _read(self, kappa: float) -> list[float]:
        s, ends = math.log(max(kappa, 1e-300)), self._curves.x
        values = self._curves(min(max(s, ends[0]), ends[-1]))
        over = max(s - ends[-1], 0.0)  # nothing is learned there: z falls like 1/κ, q like 1/κ²
        return np.exp(values - over * np.array([1.0, 2.0, 0.0, 0.0])).tolist()


def _interpolant(curves: Tensor) -> PchipInterpolator:
    """Log z, q, b₁, b₂ as monotone cubics of log κ."""
    return PchipInterpolator(curves[0].log().numpy(), curves[1:].log().numpy(), axis=1)


def _tail(measured: Tensor, alpha: float, law: RiskLaw) -> Tensor:
    r"""The curves below the lowest measured resolution κ₀, over twenty powers of e.

    The slope −d log z / d log κ = 1 − q/z goes from what it is at κ₀ to 1/α while z doubles, so that z and q, and with
    them the overfitting, have no kink; b₁ follows from b₂ by :math:`b_1/κ = \int_κ^\infty b_2/s^2\, ds`.
    """
    kappa0, z0, q0, first0, second0 = measured[:, 0].tolist()
    t = torch.linspace(-20, 0, _BEYOND + 1, dtype=torch.float64).exp()  # κ / κ₀
    change = 1 - q0 / z0 - 1 / alpha
    z = z0 * t ** (-1 / alpha) * torch.exp(-change * alpha * (t ** (1 / alpha) - 1))
    q = z * (1 - 1 / alpha - change * t ** (1 / alpha))
    floor = min(law.a, second0)
    second = floor + (second0 - floor) * (z / z0) ** -law.c
    kappa = kappa0 * t
    steps = (second[1:] + second[:-1]) / 2 * (1 / kappa[:-1] - 1 / kappa[1:])  # trapezoids in 1/κ
    area = torch.cat([steps.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
    first = kappa * (first0 / kappa0 + area)
    return torch.stack([kappa, z, q, first, second])[:, :-1]
