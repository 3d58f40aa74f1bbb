"""Adjusting gradients by the tangent kernel of a few points counters the spectral bias of coordinate networks [016].

On the circle a ReLU layer of NTK parametrisation learns a sum of sines by gradient descent: plainly, with the residual
adjusted by the empirical kernel of all points, by that of one point in eight (IGA), and by the kernel of infinite width
at the same points. Each has its best of the learning rates; compared is the relative error at the
highest frequency. The sines have whole periods, as the paper's own target jumps where the circle closes.

Then a crop of a photograph is learned by a SIREN and by ReLUs on positional encodings with Adam at one rate: plainly,
plainly with twice the steps (about the time of IGA), with IGA, and with what else is used against spectral bias:
Fourier reparametrisation and BatchNorm. Compared are the peak signal-to-noise ratios over seeds.

Then, plainly, with twice the steps and with IGA: a sum of six sines on the line (SIREN, error at the highest), the
occupancy of a solid (SIREN, ReLUs on encodings; intersection over union) and a scene that is learned through pictures
rendered from it (ReLUs on encodings; signal-to-noise ratio of pictures from new places).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims._fields import draw, gains_of, learn_fields, scores_of, told
from tangrams.claims.base import Claim, Evidence
from tangrams.lens import band_psnr, frequency_error
from tangrams.nn import (
    SIREN,
    Centre,
    CoordinateNetwork,
    FourierReparamLinear,
    GroupPartition,
    InductiveGradientAdjustment,
    PositionalEncodingMLP,
)
from tangrams.nn.coordinate.positional_encoding import octaves_of
from tangrams.operators import spectral_transform

_PERIODS = (1, 2, 4, 6)
_MODES = 14
_PLAIN, _WHOLE, _IGA, _LIMIT = (
    "plain",
    "kernel of all points",
    "IGA, groups of 8",
    "kernel of infinite width, groups of 8",
)


def measure(
    points: int,
    demo_width: int,
    demo_steps: int,
    demo_rates: Sequence[float],
    demo_refresh: int,
    demo_seeds: int,
    size: int,
    patch: int,
    end: int,
    width: int,
    steps: int,
    seeds: int,
    rivals: bool,
    signal: tuple[int, int],
    solid: tuple[int, int],
    scene: tuple[int, int, int, int],
    device: str = "cpu",
) -> Evidence:
    """The circle, the photograph, and the fields, whose sizes end with a number of steps."""
    circle = {name: [] for name in (_PLAIN, _WHOLE, _IGA, _LIMIT)}
    for seed in range(demo_seeds):
        for name, runs in circle.items():
            tried = [
                _learn_circle(name, points, demo_width, demo_steps, rate, demo_refresh, seed, device)
                for rate in demo_rates
            ]
            best = int(np.argmin([curve[-1] for curve in tried]))
            runs.append({"rate": demo_rates[best], "curve": tried[best]})
    image = _photograph(size, device)
    photograph: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for kind in ("SIREN", "ReLU on encodings"):
        ways = ["plain", "plain, twice the steps", "IGA"]
        if rivals:
            ways += ["Fourier reparametrisation", *(["BatchNorm"] if kind != "SIREN" else [])]
        photograph[kind] = {
            way: [_learn_image(kind, way, image, patch, end, width, steps, seed, device) for seed in range(seeds)]
            for way in ways
        }
    fields = learn_fields(signal, solid, scene, width, seeds, device)
    return _conclude(circle, photograph, fields)


class _CircleNetwork(nn.Module):
    """``a · relu((W x + b) / √2) / √m`` with fixed signs a, W normal and b zero."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.hidden, self.scale = nn.Linear(2, width), (2 * width) ** -0.5
        nn.init.normal_(self.hidden.weight, generator=generator)
        nn.init.zeros_(self.hidden.bias)
        self.register_buffer("signs", 2.0 * torch.randint(2, (1, width), generator=generator) - 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(torch.relu(self.hidden(x)), self.scale * self.signs)


def _limit_kernel(x: Tensor) -> Tensor:
    """The kernel of the circle's network at infinite width, ``(x·x' + 1)(π − arccos x·x') / 4π``."""
    cosine = (x @ x.mT).clamp(-1, 1)
    return (cosine + 1) * (math.pi - cosine.arccos()) / (4 * math.pi)


def _learn_circle(
    name: str, points: int, width: int, steps: int, rate: float, refresh: int, seed: int, device: str
) -> list[float]:
    """The relative error at the highest frequency, at 50 moments."""
    angle = torch.arange(points, device=device) * (2 * math.pi / points)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    y = torch.stack([torch.sin(k * angle) for k in _PERIODS]).sum(0)[:, None]
    model = _CircleNetwork(width, seed).to(device)
    groups = GroupPartition.sequence(points, 1 if name == _WHOLE else 8).to(device)
    adjustment = InductiveGradientAdjustment(model, groups, _MODES, 0, representatives=Centre(), refresh=refresh)
    S = spectral_transform(_limit_kernel(x[groups.index[:, groups.index.shape[1] // 2]].double()), _MODES, 0)
    optimizer = torch.optim.SGD(model.parameters(), rate)
    curve = []
    for step in range(steps):
        prediction = model(x)
        optimizer.zero_grad()
        if name in (_WHOLE, _IGA):
            adjustment.loss(x, prediction, y).backward()
        else:
            residual = (prediction - y).detach()
            residual = residual if name == _PLAIN else groups.apply(S, residual)
            prediction.backward(2 / len(x) * residual)
        optimizer.step()
        if (step + 1) % max(1, steps // 50) == 0:
            with torch.no_grad():
                error = frequency_error(model(x)[:, 0], y[:, 0], _PERIODS[-1:])
            curve.append(float(error) if bool(error.isfinite()) else math.inf)
    return curve


def _photograph(size: int, device: str) -> Tensor:
    """A crop with roof, tree and sky, in [0, 1]."""
    from sklearn.datasets import load_sample_image

    whole = torch.tensor(load_sample_image("china.jpg"), dtype=torch.float32) / 255
    top, left = max(0, min(150, whole.shape[0] - size)), max(0, min(250, whole.shape[1] - size))
    return whole[top : top + size, left : left + size].to(device)


def _image_network(kind: str, way: str, size: int, width: int, seed: int) -> tuple[CoordinateNetwork, float]:
    """The network and the rate of Adam for all of its kind."""
    generator = torch.Generator().manual_seed(seed)
    sines = kind == "SIREN"
    network: CoordinateNetwork
    if sines:
        network = SIREN(2, width, 3, 3, generator=generator)
    else:
        network = PositionalEncodingMLP(2, width, 3, 3, num_frequencies=octaves_of(size), generator=generator)
    for place in (1, 2):
        if way == "Fourier reparametrisation":
            omega = 30.0 if sines else 1.0
            network.layers[place] = FourierReparamLinear(width, width, omega=omega, generator=generator)
    if way == "BatchNorm":
        for place in range(3):
            network.layers[place] = nn.Sequential(network.layers[place], nn.BatchNorm1d(width))
    return network, 1e-3 if sines else 5e-3


def _learn_image(
    kind: str, way: str, image: Tensor, patch: int, end: int, width: int, steps: int, seed: int, device: str
) -> dict[str, Any]:
    """The best signal-to-noise ratio on the way, that of the last picture by bands, and the CPU time."""
    size = len(image)
    model, rate = _image_network(kind, way, size, width, seed)
    model = model.to(device)
    line = torch.linspace(-1, 1, size, device=device)
    x, y = torch.cartesian_prod(line, line), image.flatten(0, 1)
    adjustment = None
    if way == "IGA":
        adjustment = InductiveGradientAdjustment(model, GroupPartition.image(size, size, patch).to(device), end)
    optimizer = torch.optim.Adam(model.parameters(), rate)
    losses = []
    start = time.process_time()
    for _ in range(2 * steps if way.endswith("twice the steps") else steps):
        prediction = model(x)
        loss = nn.functional.mse_loss(prediction, y) if adjustment is None else adjustment.loss(x, prediction, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    seconds = time.process_time() - start
    curve = -10 * torch.stack(losses).log10()
    picture = prediction.detach().reshape(image.shape).clamp(0, 1)
    bands = band_psnr(picture.movedim(-1, 0), image.movedim(-1, 0), 4).mean(0)
    return {
        "psnr": float(curve.max()),
        "curve": curve[:: max(1, len(curve) // 50)].tolist(),
        "psnr_by_band": bands.tolist(),
        "cpu_seconds": seconds,
    }


def _conclude(circle: dict[str, Any], photograph: dict[str, Any], fields: dict[str, Any]) -> Evidence:
    final = {name: [run["curve"][-1] for run in runs] for name, runs in circle.items()}
    error = {name: float(np.mean(values)) for name, values in final.items()}
    psnr = {
        kind: {way: [run["psnr"] for run in runs] for way, runs in ways.items()} for kind, ways in photograph.items()
    }
    mean = {kind: {way: float(np.mean(v)) for way, v in ways.items()} for kind, ways in psnr.items()}
    gain = {
        kind: {way: np.subtract(ways["IGA"], values) for way, values in ways.items() if way != "IGA"}
        for kind, ways in psnr.items()
    }
    scores = scores_of(fields)
    better = gains_of(scores)
    good = [
        all((ways["plain"] > 0).all() for ways in better.values()),
        all(values.mean() > 0 for ways in better.values() for values in ways.values()),
        error[_IGA] < 0.5 * error[_PLAIN],
        error[_WHOLE] < error[_PLAIN],
        all((ways["plain"] > 0).all() for ways in gain.values()),
        all(values.mean() > 0 for ways in gain.values() for values in ways.values()),
    ]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    words = "; ".join(
        f"{kind}: "
        + ", ".join(f"{way} {value:.1f}" for way, value in ways.items())
        + f" (IGA {gain[kind]['plain'].mean():+.1f} dB{_spread(gain[kind]['plain'])})"
        for kind, ways in mean.items()
    )
    sentence = (
        f"Relative error at {_PERIODS[-1]} periods on the circle, each at its best rate: {error[_PLAIN]:.3f} plain, "
        f"{error[_WHOLE]:.3f} with the kernel of all points, {error[_IGA]:.3f} with that of one point in eight, "
        f"{error[_LIMIT]:.3f} with that of infinite width. Peak signal-to-noise ratio in dB, {words}. Plain, with "
        f"twice the steps and IGA: {told(scores)}."
    )
    numbers: dict[str, Any] = {
        "circle_error_at_highest_frequency": final,
        "circle_best_rate": {name: [run["rate"] for run in runs] for name, runs in circle.items()},
        "psnr": psnr,
        "psnr_mean": mean,
        "psnr_by_band_from_low_to_high": {
            kind: {way: np.mean([r["psnr_by_band"] for r in runs], 0).tolist() for way, runs in ways.items()}
            for kind, ways in photograph.items()
        },
        "fields": scores,
        "fields_cpu_seconds": {
            name: {way: float(np.mean([run["cpu_seconds"] for run in runs])) for way, runs in ways.items()}
            for name, ways in fields.items()
        },
        "cpu_seconds": {
            kind: {way: float(np.mean([r["cpu_seconds"] for r in runs])) for way, runs in ways.items()}
            for kind, ways in photograph.items()
        },
    }
    return Evidence(verdict, sentence, numbers, _figure(circle, photograph, scores))


def _spread(values: np.ndarray) -> str:
    return f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""


def _figure(circle: dict[str, Any], photograph: dict[str, Any], scores: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    (left, *panels), below = figure.subplots(2, 3)
    draw(below, scores)
    for name, runs in circle.items():
        curve = np.mean([run["curve"] for run in runs], 0)
        left.semilogy(np.linspace(0, 1, len(curve)), curve, label=name)
    left.set_title(f"circle: relative error at {_PERIODS[-1]} periods", fontsize=10)
    left.set_xlabel("part of the steps")
    left.legend(fontsize=7)
    for panel, (kind, ways) in zip(panels, photograph.items(), strict=True):
        _draw_curves(panel, ways)
        panel.set_title(f"photograph, {kind}: PSNR in dB", fontsize=10)
    return figure


def _draw_curves(panel: Any, ways: dict[str, Any]) -> None:
    for way, runs in ways.items():
        curve = np.mean([run["curve"] for run in runs], 0)
        seconds = float(np.mean([run["cpu_seconds"] for run in runs]))
        panel.plot(np.linspace(0, seconds, len(curve)), curve, label=way)
    panel.set_xlabel("seconds")
    panel.legend(fontsize=7)


CLAIM = Claim(
    number=16,
    slug="inductive-gradient-adjustment",
    statement=(
        "Coordinate networks learn high frequencies sooner when residuals are adjusted by the spectrum of their own "
        "tangent kernel, and the kernel of one point per group of neighbours is enough for that."
    ),
    baselines=(
        "the plain gradient, at its best learning rate",
        "the plain gradient with twice the steps",
        "the kernel of all points, and that of infinite width",
        "Fourier reparametrisation",
        "BatchNorm",
    ),
    measure=measure,
    presets={
        "quick": {
            "points": 256,
            "demo_width": 1024,
            "demo_steps": 400,
            "demo_rates": (3.0,),
            "demo_refresh": 5,
            "demo_seeds": 1,
            "size": 64,
            "patch": 8,
            "end": 20,
            "width": 64,
            "steps": 100,
            "seeds": 2,
            "rivals": False,
            "signal": (512, 50),
            "solid": (12, 40),
            "scene": (4, 6, 12, 40),
        },
        "full": {
            "points": 256,
            "demo_width": 1024,
            "demo_steps": 1000,
            "demo_rates": (1.0, 3.0),
            "demo_refresh": 5,
            "demo_seeds": 3,
            "size": 64,
            "patch": 8,
            "end": 20,
            "width": 64,
            "steps": 250,
            "seeds": 3,
            "rivals": True,
            "signal": (2048, 300),
            "solid": (24, 200),
            "scene": (8, 12, 24, 200),
        },
        "gpu": {
            "points": 1024,
            "demo_width": 8192,
            "demo_steps": 5000,
            "demo_rates": (1.0, 3.0),
            "demo_refresh": 1,
            "demo_seeds": 10,
            "size": 384,
            "patch": 24,
            "end": 20,
            "width": 256,
            "steps": 5000,
            "seeds": 5,
            "rivals": True,
            "signal": (2048, 10000),
            "solid": (64, 2000),
            "scene": (8, 24, 32, 2000),
            "device": "cuda",
        },
    },
)
