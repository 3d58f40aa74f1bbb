"""Random features stay fragile at every width; tangent features of an even activation reach the universal law [001].

The sensitivity of minimum-norm interpolation at fresh samples as the number of hidden units k grows, n and d fixed, on
Gaussian samples with random labels and on images of zeros and ones. Random features (RF) have p = k parameters, tangent
features of the first layer (NTK) p = d k; √(n d / p), the law that no interpolating model beats, is drawn beside them.
What is asked of Gaussian samples is the slope in log k: flat for RF and for the NTK of an activation that is not even,
falling for the NTK of an even one: −½ by the law, less by the rate that is proven, 1 + √(n/k), where k is not far below
n. Of images the same order is asked. The parts of the bound at the largest width say what drives the difference, and
samples of growing size n = d how RF grow with n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from tangrams.claims._networks import samples_of
from tangrams.claims.base import Claim, Evidence
from tangrams.features import RandomFeatures, ShallowTangentFeatures
from tangrams.lens import min_norm_fit, sensitivity_parts, universal_sensitivity


def half_square(u: Tensor) -> Tensor:
    """u² / 2."""
    return u.square() / 2


FEATURES: dict[str, tuple[type[RandomFeatures] | type[ShallowTangentFeatures], Any]] = {
    "RF tanh": (RandomFeatures, torch.tanh),
    "RF softplus": (RandomFeatures, F.softplus),
    "NTK tanh": (ShallowTangentFeatures, torch.tanh),
    "NTK softplus": (ShallowTangentFeatures, F.softplus),
    "NTK cos": (ShallowTangentFeatures, torch.cos),
    "NTK u²/2": (ShallowTangentFeatures, half_square),
}
EVEN = ("NTK cos", "NTK u²/2")
FLAT, FALLING = (-0.2, 0.1), -0.25
"""Slopes in log k that count as flat, and as falling."""
TEST = 8
"""Fresh samples at which the sensitivity is taken."""


def measure(
    size: int,
    random_widths: Sequence[int],
    tangent_widths: Sequence[int],
    seeds: int,
    images: str | None,
    num_images: int,
    sizes: Sequence[int],
    device: str = "cpu",
) -> Evidence:
    """Sensitivities over widths and seeds on both kinds of data, and of random features over sizes."""
    widths = {name: random_widths if name.startswith("RF") else tangent_widths for name in FEATURES}
    data = {
        "Gaussian": lambda seed: _gaussian(size, size, seed),
        "images": lambda seed: _zeros_and_ones(images, num_images, seed),
    }
    found = {
        kind: {
            name: np.array([[_parts(name, k, draw(seed), seed, device) for k in widths[name]] for seed in range(seeds)])
            for name in FEATURES
        }
        for kind, draw in data.items()
    }  # (seed, width, part)
    growth = [  # RF tanh with 40 n units
        float(np.mean([_parts("RF tanh", 40 * n, _gaussian(n, n, s), s, device)[0] for s in range(seeds)]))
        for n in sizes
    ]
    return _conclude(size, widths, found, sizes, growth)


def _conclude(
    size: int,
    widths: Mapping[str, Sequence[int]],
    found: Mapping[str, Mapping[str, np.ndarray]],
    sizes: Sequence[int],
    growth: Sequence[float],
) -> Evidence:
    """What the slopes in the widths say."""
    slopes = {
        kind: {name: _slope(widths[name], parts[:, :, 0].mean(0)) for name, parts in at.items()}
        for kind, at in found.items()
    }
    units = widths[EVEN[0]]
    good = [_as_the_paper_says(slopes["Gaussian"]), _ordered(slopes["images"])]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    rate = _slope(units, [1 + math.sqrt(size / k) for k in units])
    last = {name: float(parts[:, -1, 0].mean()) for name, parts in found["Gaussian"].items()}
    law = universal_sensitivity(size, size, size * units[-1])
    sentence = (
        "Slopes of log sensitivity in log k: "
        + "; ".join(f"{kind}: " + ", ".join(f"{k} {v:+.2f}" for k, v in at.items()) for kind, at in slopes.items())
        + f" (universal law −0.50; 1 + √(n/k), proven for even activations up to log k, {rate:.2f}). At n = d = {size} "
        + "and the largest width: "
        + ", ".join(f"{name} {value:.1f}" for name, value in last.items())
        + f", the law for the NTK {law:.2f}. RF tanh grows like n^{_slope(sizes, growth):.2f}."
    )
    names = ("sensitivity", "interaction", "centred_interaction", "inverse_gram", "bound")
    numbers: dict[str, Any] = {
        "widths": {name: list(width) for name, width in widths.items()},
        "slopes": slopes,
        "slope_of_the_proven_rate": rate,
        "parts": {
            kind: {k: {p: v[:, :, i].tolist() for i, p in enumerate(names)} for k, v in at.items()}
            for kind, at in found.items()
        },
        "universal_law": [universal_sensitivity(size, size, size * k) for k in units],
        "sizes": list(sizes),
        "sensitivity_over_sizes": list(growth),
        "slope_over_sizes": _slope(sizes, growth),
    }
    return Evidence(verdict, sentence, numbers, _figure(size, widths, found))


def _parts(name: str, width: int, data: tuple[Tensor, Tensor, Tensor], seed: int, device: str) -> list[float]:
    """Sensitivity and what bounds it, means over the test samples."""
    x, y, z = (part.to(device) for part in data)
    member, activation = FEATURES[name]
    fit = min_norm_fit(member(x.shape[1], width, activation, seed=seed), x, y)
    parts = sensitivity_parts(fit, z)
    rows = [[p.sensitivity, p.interaction, p.centred_interaction, p.inverse_gram, p.bound] for p in parts]
    return np.mean(rows, axis=0).tolist()


def _gaussian(n: int, d: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(n, d), draw(n), draw(TEST, d)


def _zeros_and_ones(name: str | None, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images of two classes as vectors of length about √d, labels ±1, test images apart."""
    train, test = samples_of(name, 100_000, seed, dtype=torch.float64)
    kept, fresh = train.targets < 2, test.targets < 2
    x, z = train.inputs[kept].flatten(1)[:n], test.inputs[fresh].flatten(1)[:TEST]
    unit = math.sqrt(x.shape[1]) / x.norm(dim=1).mean()
    return x * unit, train.targets[kept][:n].double() * 2 - 1, z * unit


def _slope(x: Sequence[int], y: Any) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _as_the_paper_says(slopes: Mapping[str, float]) -> bool:
    flat = all(FLAT[0] <= slope <= FLAT[1] for name, slope in slopes.items() if name not in EVEN)
    return flat and all(slopes[name] < FALLING for name in EVEN)


def _ordered(slopes: Mapping[str, float]) -> bool:
    """Whether both even activations fall faster than all else."""
    return max(slopes[name] for name in EVEN) < min(slope for name, slope in slopes.items() if name not in EVEN)


def _figure(size: int, widths: Mapping[str, Sequence[int]], found: Any) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axis, (kind, at) in zip(figure.subplots(1, 2), found.items(), strict=True):
        for i, (name, parts) in enumerate(at.items()):
            values = parts[:, :, 0]
            deviation = 1.96 * values.std(0) / math.sqrt(len(values))
            line = "-o" if name in EVEN else "--s"
            axis.errorbar(widths[name], values.mean(0), deviation, fmt=line, color=f"C{i}", markersize=4, label=name)
        if kind == "Gaussian":
            units = list(widths["NTK cos"])
            law = [universal_sensitivity(size, size, size * k) for k in units]
            axis.plot(units, law, ":", color="0.5", label="√(nd/p), NTK")
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("hidden units k")
        axis.set_title(f"sensitivity, {kind}", fontsize=10)
        axis.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=1,
    slug="robustness-laws",
    statement=(
        "Minimum-norm interpolation with random features is fragile at every width; with the tangent features of a "
        "two-layer network it becomes robust as the width grows, as fast as the universal law allows, if the "
        "activation is even, and does not if it is not."
    ),
    baselines=("the universal law √(nd/p)", "tangent features of an activation that is not even"),
    measure=measure,
    presets={
        "quick": {
            "size": 120,
            "random_widths": (1000, 4000, 16_000),
            "tangent_widths": (20, 60, 200),
            "seeds": 2,
            "images": None,
            "num_images": 120,
            "sizes": (50, 100, 200),
        },
        "full": {
            "size": 300,
            "random_widths": (2000, 8000, 32_000),
            "tangent_widths": (20, 60, 200, 600),
            "seeds": 4,
            "images": "mnist",
            "num_images": 400,
            "sizes": (100, 200, 400),
        },
        "gpu": {
            "size": 1000,
            "random_widths": (10_000, 40_000, 200_000),
            "tangent_widths": (15, 50, 100, 300),
            "seeds": 10,
            "images": "mnist",
            "num_images": 1200,
            "sizes": (200, 400, 800, 1600),
            "device": "cuda",
        },
    },
)
