"""Coordinate networks that learn a signal, a solid and a scene, for the claim of [016]."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tangrams.data import gyroid_solid, orbit_rays, render_rays, sine_mixture, striped_balls
from tangrams.lens import frequency_error
from tangrams.nn import SIREN, Centre, CoordinateNetwork, GroupPartition, InductiveGradientAdjustment
from tangrams.nn import PositionalEncodingMLP as Encoded

WAYS = ("plain", "plain, twice the steps", "IGA")
"""What a network is trained by."""

_SCORES = {
    "sines": ("error", -1, "relative error at the highest of six sines"),
    "solid, SIREN": ("overlap", 1, "overlap with a solid, SIREN"),
    "solid, ReLU": ("overlap", 1, "ReLU"),
    "scene": ("psnr", 1, "dB of new pictures of a scene"),
}
"""Of each field: what is compared, whether more of it is better, and its name."""

Runs = dict[str, dict[str, list[dict[str, float]]]]
"""Field → way → a run per seed."""


def learn_fields(
    signal: tuple[int, int],
    solid: tuple[int, int],
    scene: tuple[int, int, int, int],
    width: int,
    seeds: int,
    device: str,
) -> Runs:
    """All fields in all ways; the sizes of each end with a number of steps."""
    learn: dict[str, Callable[[str, int], dict[str, float]]] = {
        "sines": lambda way, seed: _signal(way, signal[0], width, signal[1], seed, device),
        "solid, SIREN": lambda way, seed: _solid("SIREN", way, solid[0], width, solid[1], seed, device),
        "solid, ReLU": lambda way, seed: _solid("ReLU", way, solid[0], width, solid[1], seed, device),
        "scene": lambda way, seed: _scene(way, *scene[:3], width, scene[3], seed, device),
    }
    return {name: {way: [run(way, seed) for seed in range(seeds)] for way in WAYS} for name, run in learn.items()}


def scores_of(runs: Runs) -> dict[str, dict[str, list[float]]]:
    """Field → way → what is compared."""
    return {
        name: {way: [run[_SCORES[name][0]] for run in found] for way, found in ways.items()}
        for name, ways in runs.items()
    }


def gains_of(scores: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, np.ndarray]]:
    """Field → rival → by how much IGA is better."""
    return {
        name: {way: np.subtract(ways["IGA"], values) * _SCORES[name][1] for way, values in ways.items() if way != "IGA"}
        for name, ways in scores.items()
    }


def told(scores: dict[str, dict[str, list[float]]]) -> str:
    """Means in words."""
    return "; ".join(
        f"{_SCORES[name][2]} {', '.join(f'{np.mean(values):.3f}' for values in ways.values())}"
        for name, ways in scores.items()
    )


def draw(panels: Any, scores: dict[str, dict[str, list[float]]]) -> None:
    """Three panels of bars."""
    shown = {
        "six sines: relative error at the highest": ("sines",),
        "solid: overlap": ("solid, SIREN", "solid, ReLU"),
        "scene: dB of new pictures": ("scene",),
    }
    for panel, (title, names) in zip(panels, shown.items(), strict=True):
        for place, name in enumerate(names):
            at = [4 * place + k for k in range(len(WAYS))]
            panel.bar(at, [np.mean(values) for values in scores[name].values()], color=["C0", "C1", "C2"])
        panel.set_xticks([4 * place + 1 for place in range(len(names))], names)
        panel.set_title(title, fontsize=10)
    panels[0].legend(panels[0].containers[0].patches, WAYS, fontsize=7)


def _signal(way: str, points: int, width: int, steps: int, seed: int, device: str) -> dict[str, float]:
    """The relative error at the highest sine, and the CPU time; a SIREN at the rate of the paper, groups of 8."""
    x, y = (t.to(device) for t in sine_mixture(points))
    model = SIREN(1, width, 3, 1, generator=torch.Generator().manual_seed(seed)).to(device)
    groups = GroupPartition.sequence(points, 8)
    loss = partial(nn.functional.mse_loss, target=y)
    found, seconds = _train(model, x, groups, loss, way, 5e-5, steps, end=min(70, len(groups) - 1), decay=1.0)
    return {"error": float(frequency_error(found[:, 0], y[:, 0], (60,))), "cpu_seconds": seconds}


def _solid(kind: str, way: str, size: int, width: int, steps: int, seed: int, device: str) -> dict[str, float]:
    """The overlap (intersection over union) with a sponge of ``size³`` points, and the CPU time; groups are slabs."""
    x, y = (t.to(device) for t in gyroid_solid(size))
    generator = torch.Generator().manual_seed(seed)
    model: CoordinateNetwork
    if kind == "SIREN":
        model = SIREN(3, width, 2, 1, omega=10.0, generator=generator)
    else:
        model = Encoded(3, width, 2, 1, num_frequencies=4, generator=generator)
    found, seconds = _train(
        model.to(device),
        x,
        GroupPartition.volume((size,) * 3, 9 * size),
        partial(nn.functional.mse_loss, target=y),
        way,
        5e-3,
        steps,
    )
    inside, true = found > 0.5, y > 0.5
    return {"overlap": float((inside & true).sum() / (inside | true).sum()), "cpu_seconds": seconds}


def _scene(
    way: str, views: int, pixels: int, samples: int, width: int, steps: int, seed: int, device: str
) -> dict[str, float]:
    """Signal-to-noise ratios in dB of pictures from seen and from new places, and the CPU time.

    Colour and density of a scene, learned by ReLUs on encodings from ``views`` pictures; of as many others the ratio is
    told. Groups are rays: the adjustment meets the gradient of the rendered pictures at the points of the rays.
    """
    fine = torch.linspace(2, 4, 401, device=device)[:-1] + 1 / 400
    depth = 2 + (torch.arange(samples, device=device) + 0.5) * (2 / samples)
    origins, directions = (t.to(device).unflatten(0, (2 * views, -1)) for t in orbit_rays(2 * views, pixels))
    seen = torch.arange(2 * views, device=device) % 4 < 2  # from above and from below alike
    parts = []
    for chosen in (seen, ~seen):
        o, d = (t[chosen].flatten(0, 1)[:, None] for t in (origins, directions))
        picture = render_rays(*striped_balls(o + fine[:, None] * d), 2 / len(fine))
        parts.append(((o + depth[:, None] * d).flatten(0, 1), picture))
    (x, picture), (new_x, new_picture) = parts

    def render(field: Tensor) -> Tensor:
        colour, density = field[:, :3].sigmoid(), 10 * nn.functional.softplus(field[:, 3])
        return render_rays(colour.unflatten(0, (-1, samples)), density.unflatten(0, (-1, samples)), 2 / samples)

    model = Encoded(3, width, 3, 4, num_frequencies=4, generator=torch.Generator().manual_seed(seed)).to(device)
    found, seconds = _train(
        model,
        x,
        GroupPartition.sequence(len(x), 4 * samples),
        lambda field: nn.functional.mse_loss(render(field), picture),
        way,
        3e-3,
        steps,
    )
    with torch.no_grad():
        errors = (render(f) - y for f, y in ((found, picture), (model(new_x), new_picture)))
        seen_ratio, new_ratio = (-10 * math.log10(float(error.square().mean())) for error in errors)
    return {"psnr_seen": seen_ratio, "psnr": new_ratio, "cpu_seconds": seconds}


def _train(
    model: nn.Module,
    x: Tensor,
    groups: GroupPartition,
    loss_of: Callable[[Tensor], Tensor],
    way: str,
    rate: float,
    steps: int,
    *,
    end: int = 15,
    decay: float = 0.1,
) -> tuple[Tensor, float]:
    """The predictions at the end, and the CPU time; Adam at a rate that falls to ``decay`` of itself."""
    adjustment = None
    if way == "IGA":
        adjustment = InductiveGradientAdjustment(model, groups.to(x.device), end, representatives=Centre())
    steps *= 2 if way.endswith("twice the steps") else 1
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay ** (1 / steps))
    start = time.process_time()
    for _ in range(steps):
        prediction = model(x)
        loss = loss_of(prediction)
        if adjustment is not None:
            loss = adjustment.adjust(x, prediction, loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    seconds = time.process_time() - start
    with torch.no_grad():
        return model(x), seconds
