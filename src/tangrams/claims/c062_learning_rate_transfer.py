"""Learning rates transfer where the sharpness follows the same path at every size [062].

Residual perceptrons learn two classes of digits by full-batch gradient descent, in μP (the spectral rule) and in NTK
parametrisation. The best rate over widths is found on a grid; the sharpness of the step, the top eigenvalue of
P^½ H P^½ with the rates P, is followed over training and compared over widths; at a large rate it should rise to 2,
the edge of stability. Over depth, branches are scaled by L^-½ or not at all. How far each width sharpens is told beside
these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims.base import Claim, Evidence
from tangrams.data import digits, load
from tangrams.lens import (
    SharpnessTracker,
    SuperConsistency,
    TransferCurve,
    loss_hessian,
    sharpness,
    step_scales,
    super_consistency,
    transfer_curve,
)
from tangrams.nn import ResidualMLP
from tangrams.nn.parametrizations import NeuralTangent, Parametrization, Spectral
from tangrams.operators.curvature import PreconditionedCurvature

_RULES: dict[str, type[Parametrization]] = {"μP": Spectral, "NTK": NeuralTangent}


def measure(
    widths: Sequence[int],
    depths: Sequence[int],
    samples: int,
    steps: int,
    every: int,
    seeds: int,
    lrs: dict[str, Sequence[float]],
    depth_lrs: Sequence[float],
    tracked: dict[str, float],
    edge_lr: float,
    depth_width: int,
    data: str | None = None,
    device: str = "cpu",
) -> Evidence:
    """Sweeps over width, sharpness over training and width, the edge, and depth."""
    x, y = (t.to(device) for t in _task(data, samples))
    curves = {
        name: transfer_curve(
            lambda n, lr, seed, name=name: _run(name, n, 3, lr, seed, steps, x, y)[0], widths, lrs[name], seeds=seeds
        )
        for name in _RULES
    }
    paths = {
        name: {n: _mean_path(name, n, tracked[name], seeds, steps, every, x, y) for n in widths} for name in _RULES
    }
    consistency = {name: super_consistency(paths[name]) for name in _RULES}
    growth = {name: [float(paths[name][n][-1] / paths[name][n][0]) for n in widths] for name in _RULES}
    edge = np.array(_run("μP", widths[-2], 3, edge_lr, 0, steps, x, y, every=every)[1])
    by_depth = {
        alpha: transfer_curve(
            lambda L, lr, seed, a=alpha: _run("μP", depth_width, L, lr, seed, steps, x, y, alpha=a)[0],
            depths,
            depth_lrs,
            seeds=seeds,
        )
        for alpha in (0.5, 0.0)
    }
    at_start = {a: [_at_start(depth_width, depth, a, x, y) for depth in depths] for a in (0.5, 0.0)}

    late = float(edge[len(edge) // 2 :].mean())
    last = {name: float(consistency[name].spread[-1]) for name in _RULES}
    parts = {
        "rates transfer over width in μP (one step of two at most)": curves["μP"].steps <= 1,
        "rates drift in NTK parametrisation (two steps or more)": curves["NTK"].steps >= 2,
        "sharpness spreads over widths half as much in μP": last["μP"] < last["NTK"] / 2,
        "large rates rise to the edge of stability": edge[0] < 1.8 < late < 2.4,
        "rates transfer over depth with L^-1/2 (one step at most)": by_depth[0.5].steps <= 1,
        "rates drift over depth without it (two steps or more)": by_depth[0.0].steps >= 2,
    }
    verdict = "holds" if all(parts.values()) else "holds in part" if any(parts.values()) else "does not hold"
    steps_of = {name: f"{curve.steps:.0f}" for name, curve in curves.items()}
    grown = {name: f"{values[0]:.2f}-fold to {values[-1]:.2f}-fold" for name, values in growth.items()}
    sentence = (
        f"Over widths {widths[0]} to {widths[-1]} the best rate moves by {steps_of['μP']} factors of two in μP and "
        f"{steps_of['NTK']} in NTK parametrisation; from the narrowest to the widest sharpness grows {grown['μP']} in "
        f"μP and {grown['NTK']} in NTK, and its log ends with a spread over widths of {last['μP']:.2f} and "
        f"{last['NTK']:.2f}; a rate of {edge_lr:g} goes from {edge[0]:.2f} to {late:.2f} (edge of stability: 2); over "
        f"depths {depths[0]} to {depths[-1]} the best rate moves by {by_depth[0.5].steps:.0f} factors of two with "
        f"L^-1/2 and by {by_depth[0.0].steps:.0f} without, where the sharpness at the start grows from "
        f"{at_start[0.0][0]:.2g} to {at_start[0.0][-1]:.2g}."
    )
    numbers: dict[str, Any] = {
        "widths": list(widths),
        "best_rate": {name: list(curve.best) for name, curve in curves.items()},
        "loss": {name: curve.loss.tolist() for name, curve in curves.items()},
        "rates": {name: list(values) for name, values in lrs.items()},
        "sharpness": {name: {str(n): list(map(float, p)) for n, p in found.items()} for name, found in paths.items()},
        "spread_of_log_sharpness": {name: c.spread.tolist() for name, c in consistency.items()},
        "sharpening": growth,
        "edge": edge.tolist(),
        "depths": list(depths),
        "rates_by_depth": list(depth_lrs),
        "best_rate_by_depth": {str(a): list(curve.best) for a, curve in by_depth.items()},
        "loss_by_depth": {str(a): curve.loss.tolist() for a, curve in by_depth.items()},
        "start_by_depth": {str(a): values for a, values in at_start.items()},
        "parts": {name: bool(value) for name, value in parts.items()},
    }
    return Evidence(verdict, sentence, numbers, _figure(curves, paths, consistency, edge, every))


def _task(data: str | None, samples: int) -> tuple[Tensor, Tensor]:
    """Digits below five against the others: inputs centred, of norm √d; targets ±1."""
    part = load(data, num_train=samples).train if data else digits(label_noise=0, duplicates=0).train.labelled()
    x = nn.functional.adaptive_avg_pool2d(part.inputs[:samples], 8).flatten(1)
    x = x - x.mean(0)
    return x / x.norm(dim=1, keepdim=True) * 8, (part.targets[:samples, None] >= 5).float() * 2 - 1


def _loss(f: Tensor, y: Tensor) -> Tensor:
    return (f - y).square().sum(1).mean() / 2


def _build(name: str, width: int, depth: int, seed: int, lr: float, alpha: float, x: Tensor) -> Any:
    model = ResidualMLP(x.shape[1], width, depth, 1, branch_exponent=alpha).to(x.device)
    plan = _RULES[name]().apply(model, generator=torch.Generator().manual_seed(seed))
    return model, torch.optim.SGD(plan.sgd(lr))


def _run(
    name: str,
    width: int,
    depth: int,
    lr: float,
    seed: int,
    steps: int,
    x: Tensor,
    y: Tensor,
    *,
    every: int = 0,
    alpha: float = 0.5,
) -> tuple[float, list[float]]:
    """Final training loss, and the sharpness of the step on the way where it is asked for."""
    model, optimizer = _build(name, width, depth, seed, lr, alpha, x)
    tracker = SharpnessTracker(model, _loss, x, y, optimizer=optimizer, every=every) if every else None
    for _ in range(steps):
        if tracker is not None:
            tracker.step()
        optimizer.zero_grad()
        loss = _loss(model(x), y)
        if not bool(loss < 1e4):
            return float("inf"), [] if tracker is None else tracker.values
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return float(_loss(model(x), y)), [] if tracker is None else tracker.values


def _mean_path(
    name: str, width: int, lr: float, seeds: int, steps: int, every: int, x: Tensor, y: Tensor
) -> np.ndarray:
    runs = [_run(name, width, 3, lr, seed, steps, x, y, every=every)[1] for seed in range(seeds)]
    return np.exp(np.log(runs).mean(0))


def _at_start(width: int, depth: int, alpha: float, x: Tensor, y: Tensor) -> float:
    model, optimizer = _build("μP", width, depth, 0, 1.0, alpha, x)
    H = loss_hessian(model, _loss, x, y)
    return sharpness(PreconditionedCurvature(curvature=H, scales=step_scales(model, optimizer)), rtol=1e-2).value


def _figure(
    curves: dict[str, TransferCurve],
    paths: dict[str, dict[int, np.ndarray]],
    consistency: dict[str, SuperConsistency],
    edge: np.ndarray,
    every: int,
) -> Figure:
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    for column, (name, curve) in enumerate(curves.items()):
        top = figure.add_subplot(2, 3, column + 1)
        bottom = figure.add_subplot(2, 3, column + 4)
        for i, width in enumerate(curve.sizes):
            colour = f"C{i}"
            finite = np.where(np.isfinite(curve.loss[i].mean(1)), curve.loss[i].mean(1), np.nan)
            top.loglog(curve.lrs, finite, "-o", color=colour, label=str(width), markersize=4)
            path = paths[name][width]
            bottom.plot(np.arange(len(path)) * every, path, "-o", color=colour, label=str(width), markersize=4)
        top.set(title=f"{name}: final loss", xlabel="rate", xticks=curve.lrs)
        top.set_xticklabels([f"{lr:g}" for lr in curve.lrs])
        top.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        bottom.set(title=f"{name}: sharpness of the step", xlabel="step", yscale="log")
        top.legend(fontsize=8, title="width")
    right = figure.add_subplot(2, 3, 3)
    right.plot(np.arange(len(edge)) * every, edge, "-o", markersize=4)
    right.axhline(2, color="0.5", linestyle="--")
    right.set(title="μP at a large rate", xlabel="step", ylabel="sharpness of the step")
    spread = figure.add_subplot(2, 3, 6)
    for name, found in consistency.items():
        spread.plot(np.arange(len(found.spread)) * every, found.spread, "-o", label=name, markersize=4)
    spread.set(title="spread of log sharpness over widths", xlabel="step")
    spread.legend(fontsize=8)
    return figure


CLAIM = Claim(
    number=62,
    slug="learning-rate-transfer",
    statement=(
        "Learning rates transfer over width and depth because the sharpness follows the same path at every size in "
        "(Depth-)μP, up to the edge of stability; in NTK parametrisation it depends on the width and rates drift."
    ),
    baselines=("NTK parametrisation", "branches without a scale"),
    measure=measure,
    presets={
        "quick": {
            "widths": (16, 48, 144),
            "depths": (2, 6, 18),
            "samples": 80,
            "steps": 101,
            "every": 20,
            "seeds": 1,
            "lrs": {"μP": (0.5, 1.0, 2.0, 4.0, 8.0), "NTK": (2.0, 4.0, 8.0, 16.0, 32.0)},
            "tracked": {"μP": 0.5, "NTK": 2.0},
            "depth_lrs": tuple(2.0**k for k in range(-8, 4)),
            "edge_lr": 2.0,
            "depth_width": 32,
        },
        "full": {
            "widths": (32, 64, 128, 256, 512),
            "depths": (2, 6, 18),
            "samples": 160,
            "steps": 301,
            "every": 60,
            "seeds": 2,
            "lrs": {"μP": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), "NTK": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
            "tracked": {"μP": 0.5, "NTK": 2.0},
            "depth_lrs": tuple(2.0**k for k in range(-12, 4)),
            "edge_lr": 2.0,
            "depth_width": 64,
            "data": "mnist",
        },
        "gpu": {
            "widths": (64, 256, 1024, 4096),
            "depths": (4, 16, 64),
            "samples": 2000,
            "steps": 501,
            "every": 50,
            "seeds": 3,
            "lrs": {"μP": (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), "NTK": (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)},
            "tracked": {"μP": 0.5, "NTK": 2.0},
            "depth_lrs": tuple(2.0**k for k in range(-16, 4)),
            "edge_lr": 2.0,
            "depth_width": 256,
            "data": "mnist",
            "device": "cuda",
        },
    },
    data={"full": ("mnist",), "gpu": ("mnist",)},
)
