"""Wide networks in NTK parametrisation train as kernel gradient flow with a deterministic kernel [055].

Measured in three parts. (1) On the paper's circle, x₁x₂ from four points, networks of growing width are trained by
gradient descent, and each is compared with the flow that starts from its own initial outputs; the law over the
ensemble is compared with the analytic Gaussian. (2) How far the empirical kernel moves in the same number of steps.
(3) On digits, a wide network against the flow, on test images.

The baselines answer the same question, what will this network predict, and are tuned in hindsight on the very outputs
that they are to predict: the flow of the NNGP (training the last layer alone), of a linear kernel, and of a Gaussian
kernel of any length scale, each at its best time. The tangent kernel has nothing to tune.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims.base import Claim, Evidence
from tangrams.data import digits
from tangrams.features import TangentFeatures
from tangrams.kernels import FullyConnectedNTK, GammaExponential, Kernel
from tangrams.learners import KernelGradientFlow
from tangrams.nn import NTKLinear

_W_STD, _B_STD = 1.0, 0.1
"""The paper's parametrisation."""


def network(sizes: Sequence[int], seed: int) -> nn.Sequential:
    """A ReLU network in NTK parametrisation."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [NTKLinear(inputs, outputs, _W_STD, _B_STD, generator=generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def descend(model: nn.Module, x: Tensor, y: Tensor, *, rate: float, steps: int) -> None:
    """Full-batch gradient descent on (1/2n) Σ |f − y|²."""
    parameters: list[Tensor] = list(model.parameters())
    for _ in range(steps):
        loss = (model(x) - y).square().sum() / (2 * len(x))
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_add_(parameters, list(gradients), alpha=-rate)


def measure(
    widths: Sequence[int],
    nets: int,
    depth: int,
    steps: int,
    kernel_widths: Sequence[int],
    kernel_nets: int,
    digits_width: int,
    digits_train: int,
    digits_steps: int,
    seed: int = 0,
) -> Evidence:
    """The three parts, each over its widths and networks."""
    circle = _circle(widths, nets, depth, steps, seed)
    movement = {width: [_movement(width, steps, seed + net) for net in range(kernel_nets)] for width in kernel_widths}
    moved = {width: float(np.mean(values)) for width, values in movement.items()}
    images = _digits(digits_width, digits_train, digits_steps, seed)

    errors = [float(np.mean(circle["error"][width])) for width in widths]
    slope = _slope(widths, errors)
    narrow, wide = min(kernel_widths), max(kernel_widths)
    ratio = moved[narrow] / moved[wide]
    best_baseline = min(images["baselines"], key=lambda name: images["baselines"][name]["error"])
    good = {
        "every wider network is closer": all(a > b for a, b in itertools.pairwise(errors)),
        "the kernel moves less": ratio > 3,
        "digits correlate above 0.98": images["correlation"] > 0.98,
        "closer than every tuned baseline": images["error"] < images["baselines"][best_baseline]["error"]
        and errors[-1] < min(circle["baselines"].values()),
    }
    verdict = "holds" if all(good.values()) else "holds in part" if any(good.values()) else "does not hold"
    sentence = (
        f"On the circle the distance of trained networks to their kernel flow falls from {errors[0]:.1%} of their "
        f"change at width {widths[0]} to {errors[-1]:.1%} at {widths[-1]} (slope {slope:.2f}; {nets} networks each; "
        f"best tuned baseline {min(circle['baselines'].values()):.1%}); over {steps} steps the kernel moves "
        f"{ratio:.1f} times less at width {wide} than at {narrow}; on digits a network of width {digits_width} "
        f"correlates {images['correlation']:.4f} with the flow's test outputs (relative error {images['error']:.1%}, "
        f"{best_baseline} {images['baselines'][best_baseline]['error']:.1%})."
    )
    numbers: dict[str, Any] = {
        "checks": good,
        "circle": {
            "widths": list(widths),
            "relative_error": [circle["error"][width] for width in widths],
            "slope_log_log": slope,
            "law": [circle["law"][width] for width in widths],
            "baselines_at_widest": circle["baselines"],
        },
        "kernel_movement": {"widths": list(kernel_widths), "relative": [movement[width] for width in kernel_widths]},
        "kernel_movement_slope_log_log": _slope(list(kernel_widths), [moved[width] for width in kernel_widths]),
        "kernel_movement_ratio": ratio,
        "digits": {name: value for name, value in images.items() if name != "points"},
    }
    return Evidence(verdict, sentence, numbers, _figure(circle, widths, errors, moved, images))


def _points(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], 1)


def _circle_task() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four training points, and the whole circle: inputs, targets, angles, inputs."""
    x = _points(torch.tensor([-2.4, -0.9, 0.5, 2.0], dtype=torch.float64))
    angles = torch.linspace(-math.pi, math.pi, 100, dtype=torch.float64)
    return x, (x[:, 0] * x[:, 1])[:, None], angles, _points(angles)


def _circle(widths: Sequence[int], nets: int, depth: int, steps: int, seed: int) -> dict[str, Any]:
    x, y, angles, new = _circle_task()
    kernel = FullyConnectedNTK(depth, W_std=_W_STD, b_std=_B_STD)
    law = KernelGradientFlow(kernel).fit(x, y).gp_posterior(new, float(steps))
    std = np.sqrt(np.diag(law.covariance))
    found: dict[str, Any] = {"angles": angles, "train": (x, y), "mean": law.mean[:, 0], "std": std, "outputs": {}}
    found |= {"error": {}, "law": {}, "baselines": {}}
    for width in widths:
        outputs, errors = [], []
        baselines: dict[str, list[float]] = {}
        for net in range(nets):
            model = network([2, *[width] * (depth - 1), 1], seed + 1000 * net)
            before = _run(model, x), _run(model, new)
            descend(model, x.float(), y.float(), rate=1.0, steps=steps)
            after = _run(model, new)
            predicted = KernelGradientFlow(kernel).fit(x, y, before[0]).predict(new, float(steps), before[1])
            change = _rms(after - before[1])
            errors.append(_rms(after - predicted) / change)
            outputs.append(after[:, 0])
            if width == widths[-1]:
                for name, best in _hindsight(kernel, x, y, new, before, after, float(steps)).items():
                    baselines.setdefault(name, []).append(best / change)
        sample = np.stack(outputs)
        found["outputs"][width] = sample
        found["error"][width] = errors
        found["law"][width] = {
            "mean_rmse_over_std": _rms(sample.mean(0) - found["mean"]) / _rms(std),
            "expected_from_sampling_alone": 1 / math.sqrt(nets),
            "std_ratio": _rms(sample.std(0, ddof=1)) / _rms(std),
            "percentile_10_rmse": _rms(np.percentile(sample, 10, 0) - (found["mean"] - 1.2816 * std)),
            "percentile_90_rmse": _rms(np.percentile(sample, 90, 0) - (found["mean"] + 1.2816 * std)),
        }
        found["baselines"] = {name: float(np.mean(values)) for name, values in baselines.items()}
    return found


def _hindsight(
    ntk: FullyConnectedNTK, x: Tensor, y: Tensor, new: Tensor, before: Sequence[Any], after: np.ndarray, time: float
) -> dict[str, float]:
    """The smallest error that each baseline reaches at any time and length scale."""
    spread = float(torch.cdist(x, x).median())
    families: Mapping[str, Sequence[Kernel]] = {
        "NNGP flow": [ntk.nngp],
        "linear kernel flow": [FullyConnectedNTK(1, W_std=_W_STD, b_std=_B_STD)],
        "Gaussian kernel flow": [GammaExponential(2.0, spread * 2.0**k) for k in range(-3, 5)],
    }
    best: dict[str, float] = {}
    for name, kernels in families.items():
        tried = []
        for kernel in kernels:
            flow = KernelGradientFlow(kernel).fit(x, y, before[0])
            times = [*(time * np.logspace(-3, 3, 25)), math.inf]
            tried += [_rms(after - flow.predict(new, float(t), before[1])) for t in times]
        best[name] = min(tried)
    return best


def _movement(width: int, steps: int, seed: int) -> float:
    """‖Θ_t − Θ_0‖ / ‖Θ_0‖ on the circle, of a network of three weight layers."""
    x, y, _, new = _circle_task()
    probe = torch.cat([x, new[::10]])
    model = network([2, width, width, 1], seed)
    before = _kernel(model, probe)
    descend(model, x.float(), y.float(), rate=1.0, steps=steps)
    return float((_kernel(model, probe) - before).norm() / before.norm())


def _kernel(model: nn.Module, x: Tensor) -> Tensor:
    """The empirical kernel in float64: its small movement is a difference of two of them."""
    return TangentFeatures(copy.deepcopy(model).double()).gram(x.double())


def _digits(width: int, count: int, steps: int, seed: int) -> dict[str, Any]:
    split = digits(label_noise=0, duplicates=0, seed=seed)
    chosen = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(seed))[:count]
    x, new = (inputs.flatten(1) * 2 - 1 for inputs in (split.train.inputs[chosen], split.test.inputs))
    y = nn.functional.one_hot(split.train.labels[chosen], 10).float() - 0.1
    kernel = FullyConnectedNTK(2, W_std=_W_STD, b_std=_B_STD)
    model = network([64, width, 10], seed)
    before = _run(model, x), _run(model, new)
    flow = KernelGradientFlow(kernel).fit(x.double(), y.double(), before[0])
    rate = flow.max_learning_rate_ / 4
    descend(model, x, y, rate=rate, steps=steps)
    after = _run(model, new)
    predicted = flow.predict(new.double(), rate * steps, before[1])
    change = _rms(after - before[1])
    baselines = _hindsight(kernel, x.double(), y.double(), new.double(), before, after, rate * steps)
    return {
        "width": width,
        "train": count,
        "steps": steps,
        "rate": rate,
        "correlation": float(np.corrcoef(after.ravel(), predicted.ravel())[0, 1]),
        "correlation_of_changes": float(
            np.corrcoef((after - before[1]).ravel(), (predicted - before[1]).ravel())[0, 1]
        ),
        "error": _rms(after - predicted) / change,
        "accuracy_network": float((after.argmax(1) == split.test.targets.numpy()).mean()),
        "accuracy_flow": float((predicted.argmax(1) == split.test.targets.numpy()).mean()),
        "same_class": float((after.argmax(1) == predicted.argmax(1)).mean()),
        "baselines": {name: {"error": value / change} for name, value in baselines.items()},
        "points": (predicted.ravel(), after.ravel()),
    }


def _run(model: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(x.float()).double().numpy()


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _slope(widths: Sequence[int], values: Sequence[float]) -> float:
    return float(np.polyfit(np.log(widths), np.log(values), 1)[0])


def _figure(
    circle: dict[str, Any],
    widths: Sequence[int],
    errors: Sequence[float],
    moved: dict[int, float],
    images: dict[str, Any],
) -> Figure:
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    law, rate, scatter = figure.subplots(1, 3)
    angles, mean, std = circle["angles"], circle["mean"], circle["std"]
    for sample, colour in ((circle["outputs"][widths[0]], "tab:orange"), (circle["outputs"][widths[-1]], "tab:green")):
        law.plot(angles, sample.T, color=colour, linewidth=0.5, alpha=0.6)
    law.plot(angles, mean, "k", label="analytic mean")
    for side in (-1.2816, 1.2816):
        law.plot(angles, mean + side * std, "k--", linewidth=1, label="10 and 90 %" if side < 0 else None)
    law.plot([], [], color="tab:orange", label=f"width {widths[0]}")
    law.plot([], [], color="tab:green", label=f"width {widths[-1]}")
    x, y = circle["train"]
    law.plot(torch.atan2(x[:, 1], x[:, 0]), y, "ko", markersize=4)
    law.set(xlabel="angle", ylabel="output", title="Trained on four points of the circle")
    law.legend(fontsize=7)
    rate.loglog(widths, errors, "o-", label="distance to the flow / change")
    rate.loglog(list(moved), list(moved.values()), "s-", label="movement of Θ / Θ")
    rate.loglog(widths, errors[0] * (np.array(widths) / widths[0]) ** -0.5, "k:", label="1/√width")
    for (name, value), style in zip(circle["baselines"].items(), ("-", "--", "-."), strict=True):
        rate.axhline(value, color="grey", linewidth=0.8, linestyle=style, label=f"{name}, tuned, widest")
    rate.set(xlabel="width", title="Closer with width")
    rate.legend(fontsize=7)
    predicted, after = images["points"]
    scatter.plot(predicted, after, ",", color="tab:blue")
    low, high = min(predicted.min(), after.min()), max(predicted.max(), after.max())
    scatter.plot([low, high], [low, high], "k", linewidth=0.7)
    scatter.set(
        xlabel="kernel flow",
        ylabel=f"network of width {images['width']}",
        title=f"Digits, r = {images['correlation']:.4f}",
    )
    return figure


CLAIM = Claim(
    number=55,
    slug="neural-tangent-kernel",
    statement="In the limit of infinite width a network trains as kernel gradient descent with a deterministic kernel "
    "that stays constant.",
    baselines=(
        "NNGP flow, best time",
        "linear kernel flow, best time",
        "Gaussian kernel flow, best time and length scale",
    ),
    measure=measure,
    presets={
        "quick": {
            "widths": (30, 120, 480),
            "nets": 8,
            "depth": 4,
            "steps": 200,
            "kernel_widths": (60, 300, 1500),
            "kernel_nets": 2,
            "digits_width": 2048,
            "digits_train": 200,
            "digits_steps": 300,
        },
        "full": {
            "widths": (50, 200, 1000, 4000),
            "nets": 10,
            "depth": 4,
            "steps": 200,
            "kernel_widths": (500, 2000, 8000),
            "kernel_nets": 2,
            "digits_width": 4096,
            "digits_train": 1000,
            "digits_steps": 1000,
        },
    },
)
