"""Particles that follow infinitely wide discriminators: which kernel carries them to the data [042].

Particles flow from a Gaussian to eight Gaussians under the IPM discriminator of a ReLU network with biases, of one
without, and of a Gaussian kernel, each at its best rate of a grid; what is measured is the Sinkhorn divergence to the
data at the end. The floor is that of two independent draws of the data, the baseline a discriminator that only
attracts. On two modes of the line, discriminators of finite width are trained on the same samples, and their largest
difference from the infinite one is followed over widths, for the IPM and for least squares.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims.base import Claim, Evidence
from tangrams.data import eight_gaussians, two_modes
from tangrams.kernels import FullyConnectedNTK, Kernel
from tangrams.kernels.ntk import RBF, AnalyticNNGP, AnalyticNTK, Dense, ReLU, Serial
from tangrams.lens import sinkhorn_divergence
from tangrams.models.gan import (
    AttractionDiscriminator,
    FiniteDiscriminator,
    InfiniteDiscriminator,
    IPMDiscriminator,
    IPMLoss,
    LSGANDiscriminator,
    LSGANLoss,
    ParticleFlow,
)
from tangrams.nn import NTKLinear

_BIAS, _NO_BIAS, _RBF, _HALF = "ReLU", "ReLU, no bias", "Gaussian", "ReLU, attraction alone"
_RATES, _BLUR = (4.0, 8.0, 16.0), 0.25


def measure(particles: int, steps: int, seeds: int, widths: Sequence[int], networks: int) -> Evidence:
    """Flows over seeds, then finite widths."""
    kernels: dict[str, Kernel] = {
        _BIAS: _relu(1.0),
        _NO_BIAS: _relu(0.0),
        _RBF: AnalyticNNGP(Serial(Dense(), RBF(0.5))),
    }
    flows: dict[str, InfiniteDiscriminator] = {name: IPMDiscriminator(kernel) for name, kernel in kernels.items()}
    flows[_HALF] = AttractionDiscriminator(kernels[_BIAS])
    reached: dict[str, list[float]] = {name: [] for name in flows}
    floor = []
    pictures: dict[str, Tensor] = {}
    for seed in range(seeds):
        real = eight_gaussians(particles, seed=2 * seed)
        start = torch.randn(particles, 2, generator=torch.Generator().manual_seed(seed))
        floor.append(_distance(eight_gaussians(particles, seed=2 * seed + 1), real))
        for name, discriminator in flows.items():
            ends = [_end(discriminator, rate, start, real, steps) for rate in _RATES]
            distances = [math.inf if end is None else _distance(end, real) for end in ends]
            best = int(np.argmin(distances))
            reached[name].append(distances[best])
            found = ends[best]
            if seed == 0 and found is not None:
                pictures[name] = found
    differences = {loss: [_difference(loss, width, networks) for width in widths] for loss in ("IPM", "least squares")}
    falls = all(found[-1] < found[0] for found in differences.values())
    mean = {name: float(np.mean(found)) for name, found in reached.items()}
    better = [
        all(a < b for a, b in zip(reached[_BIAS], reached[rival], strict=True)) for rival in (_RBF, _NO_BIAS, _HALF)
    ]
    parts = [*better, falls]
    away = f"reaches {mean[_HALF]:.3f}" if math.isfinite(mean[_HALF]) else "sends them away at every rate"
    verdict = "holds" if all(parts) else "holds in part" if any(parts) else "does not hold"
    sentence = (
        f"After {steps} steps of {particles} particles ({seeds} seeds, best of {len(_RATES)} rates each) the Sinkhorn "
        f"divergence to eight Gaussians is {mean[_BIAS]:.3f} with the ReLU network's kernel, {mean[_RBF]:.3f} with a "
        f"Gaussian kernel, {mean[_NO_BIAS]:.3f} without biases; attraction alone {away} (two draws of the data: "
        f"{np.mean(floor):.3f}). From width {widths[0]} to {widths[-1]} the largest difference of a trained "
        f"discriminator from the infinite one falls from {differences['IPM'][0]:.3f} to {differences['IPM'][-1]:.3f} "
        f"(IPM) and from {differences['least squares'][0]:.3f} to {differences['least squares'][-1]:.3f} (least "
        "squares) of its size."
    )
    numbers: dict[str, Any] = {
        "sinkhorn_divergence": {n: [d if math.isfinite(d) else None for d in ds] for n, ds in reached.items()},
        "of_two_draws": floor,
        "widths": list(widths),
        "largest_relative_difference": differences,
    }
    return Evidence(verdict, sentence, numbers, _figure(pictures, reached, floor, widths, differences))


def _relu(bias: float) -> AnalyticNTK:
    hidden = [layer for _ in range(3) for layer in (Dense(1.0, bias), ReLU())]
    return AnalyticNTK(Serial(*hidden, Dense()))


def _end(discriminator: InfiniteDiscriminator, rate: float, start: Tensor, real: Tensor, steps: int) -> Tensor | None:
    """Where the particles end, or None if the rate is too large for them to stay anywhere."""
    try:
        end = ParticleFlow(discriminator, rate).run(start, real, steps, keep=steps).particles[-1]
    except (FloatingPointError, ValueError):
        return None
    return end if float(end.abs().max()) < 100 else None


def _distance(x: Tensor, y: Tensor) -> float:
    return float(sinkhorn_divergence(x, y, blur=_BLUR, rtol=1e-5))


def _difference(loss: str, width: int, networks: int) -> float:
    """Largest difference from the infinite discriminator over the line, relative to its largest value."""
    real, fake = two_modes(64, seed=0), torch.randn(64, 1, generator=torch.Generator().manual_seed(1))
    line = torch.linspace(-4, 4, 81)[:, None]
    kernel = FullyConnectedNTK(2, ReLU(), W_std=1.0, b_std=1.0)
    infinite = IPMDiscriminator(kernel) if loss == "IPM" else LSGANDiscriminator(kernel)
    limit = infinite.fit(fake, real)(line)
    found = []
    for seed in range(networks):
        game = IPMLoss() if loss == "IPM" else LSGANLoss()
        trained = FiniteDiscriminator(lambda s=seed: _network(width, s), game, steps=100, learning_rate=0.01)
        found.append(float((trained.fit(fake, real)(line).detach() - limit).abs().max() / limit.abs().max()))
    return float(np.mean(found))


def _network(width: int, seed: int) -> nn.Module:
    g = torch.Generator().manual_seed(seed)
    first, last = NTKLinear(1, width, 1.0, 1.0, generator=g), NTKLinear(width, 1, 1.0, 1.0, generator=g)
    return nn.Sequential(first, nn.ReLU(), last)


def _figure(
    pictures: dict[str, Tensor],
    reached: dict[str, list[float]],
    floor: list[float],
    widths: Sequence[int],
    differences: dict[str, list[float]],
) -> Figure:
    figure = Figure(figsize=(13, 3), layout="constrained")
    panels = figure.subplots(1, len(pictures) + 2)
    for axes, (name, points) in zip(panels, pictures.items(), strict=False):
        axes.plot(points[:, 0], points[:, 1], ".", markersize=2)
        axes.set(title=name, xlim=(-8, 8), ylim=(-8, 8), aspect="equal", xticks=[], yticks=[])
        axes.title.set_fontsize(9)
    bars, lines = panels[-2:]
    shown = {name: found for name, found in reached.items() if all(map(math.isfinite, found))}
    bars.barh(list(shown), [np.mean(found) for found in shown.values()], color="0.85")
    for row, found in enumerate(shown.values()):
        bars.plot(found, [row] * len(found), "o", color="C0", markersize=3)
    bars.axvline(float(np.mean(floor)), color="0.4", linestyle=":")
    bars.set_xscale("log")
    bars.tick_params(axis="y", labelsize=7)
    bars.set_title("Sinkhorn divergence (⋯ two draws)", fontsize=9)
    for name, found in differences.items():
        lines.loglog(widths, found, "-o", markersize=3, label=name)
    lines.set_title("finite width against infinite", fontsize=9)
    lines.set_xlabel("width")
    lines.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=42,
    slug="gan-ntk",
    statement=(
        "Discriminators of finite width follow the infinite one, and the kernel of a ReLU network with biases carries "
        "fakes to multi-modal data better than a Gaussian kernel or one without biases."
    ),
    baselines=("a Gaussian kernel", "no biases", "attraction alone", "two independent draws of the data"),
    measure=measure,
    presets={
        "quick": {"particles": 80, "steps": 100, "seeds": 2, "widths": (64, 256, 1024), "networks": 4},
        "full": {"particles": 160, "steps": 300, "seeds": 4, "widths": (64, 256, 1024, 4096), "networks": 8},
        "gpu": {"particles": 500, "steps": 5000, "seeds": 5, "widths": (64, 256, 1024, 4096, 16384), "networks": 10},
    },
)
