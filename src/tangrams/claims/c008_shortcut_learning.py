"""Nonlinear networks prefer the more available of two predictive features, linear ones hardly [008].

Networks with no, one and two hidden layers are trained by SGD on the paper's generator (core .9, shortcut .85,
covariance .6), the shortcut amplified one, two and five times, embeddings and samples shared; their bias is their
reliance on the shortcut less that of the Bayes rule. A linear model fitted to convergence stands beside the one trained
by SGD, since a badly conditioned linear fit shows a bias of its own. What the tangent kernel explains is measured at
the paper's premise, both features equally predictive and their spread small beside their means: the relative
sensitivity to the amplified feature in regression with kernels of one to four layers, the ridge the same for all.
The effect is one of finite samples: with 3,200 of them, as in the paper, networks trained under a falling rate are
close to the Bayes rule at an amplification of five, and the rise drowns in its spread.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from tangrams.claims.base import Claim, Evidence
from tangrams.data import ShortcutTask
from tangrams.kernels import FullyConnectedNTK
from tangrams.lens import KernelShortcutProbe, shortcut_bias

LINEAR, CONVERGED = "linear, SGD", "linear, converged"
_NETWORKS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    LINEAR: (0, torch.relu),
    "one ReLU layer": (1, torch.relu),
    "one tanh layer": (1, torch.tanh),
    "two ReLU layers": (2, torch.relu),
}


def measure(
    alphas: Sequence[float],
    seeds: int,
    samples: int,
    width: int,
    epochs: int,
    kernel_depths: Sequence[int],
    kernel_seeds: int,
    kernel_samples: int,
    device: str = "cpu",
) -> Evidence:
    """Bias of networks and of kernels over amplifications and seeds."""
    tasks = [[ShortcutTask(0.85, alpha_s=alpha, seed=seed) for seed in range(seeds)] for alpha in alphas]
    bias = {name: np.empty((len(alphas), seeds)) for name in (*_NETWORKS, CONVERGED)}
    for name, (depth, activation) in _NETWORKS.items():
        flat = list(itertools.chain(*tasks))
        trained = _train(flat, samples, [width] * depth, activation, 0.05 if depth else 0.1, epochs, device)
        found = [shortcut_bias(partial(trained, e), task).bias for e, task in enumerate(flat)]
        bias[name] = np.array(found).reshape(len(alphas), seeds)
    for i, j in np.ndindex(len(alphas), seeds):
        bias[CONVERGED][i, j] = shortcut_bias(_converged(tasks[i][j], samples, j), tasks[i][j]).bias
    rises = {name: _mean(values[-1] - values[0]) for name, values in bias.items()}
    kernels = _kernels(alphas, kernel_depths, kernel_seeds, kernel_samples)
    lean = {depth: _mean(k["share"][-1] - k["share"][0]) for depth, k in kernels.items()}
    nonlinear = [name for name in _NETWORKS if name != LINEAR]
    at_most = {name: float(values[-1].mean()) for name, values in bias.items()}
    good = [rises[name][0] > max(rises[LINEAR][0], rises[CONVERGED][0]) for name in nonlinear]
    good += [at_most[LINEAR] < at_most["one ReLU layer"] < at_most["two ReLU layers"]]
    good += [lean[depth][0] > lean[1][0] for depth in kernel_depths if depth > 1]
    verdict = "holds" if all(good) else "holds in part" if all(good[: len(nonlinear)]) else "does not hold"
    listed = ", ".join(f"{name} {v[0].mean():.2f} → {v[-1].mean():.2f}" for name, v in bias.items())
    least = min(rises[n][0] for n in nonlinear) - rises[LINEAR][0]
    sensitive = [f"{lean[1][0]:+.2f} on the linear kernel"]
    sensitive += [f"{lean[d][0]:+.2f} with {d} layers" for d in kernel_depths if d > 1]
    sentence = (
        f"Amplifying the shortcut {alphas[-1]:g} times raises the bias over {seeds} seeds: {listed} (nonlinear less "
        f"linear, {least:+.3f} at the least). In kernel regression at equal predictivity the shortcut's share of the "
        f"sensitivity rises by {', '.join(sensitive)}."
    )
    numbers: dict[str, Any] = {
        "alphas": list(alphas),
        "bias": {name: values.tolist() for name, values in bias.items()},
        "rise": {name: {"mean": mean, "interval_95": half} for name, (mean, half) in rises.items()},
        "reliance_of_the_bayes_rule": shortcut_bias(lambda x: x[:, 0], tasks[0][0]).optimal_reliance,
        "kernel": {str(d): {name: v.tolist() for name, v in k.items()} for d, k in kernels.items()},
        "kernel_sensitivity_rise": {str(d): {"mean": m, "interval_95": half} for d, (m, half) in lean.items()},
    }
    return Evidence(verdict, sentence, numbers, _figure(alphas, bias, kernels))


def _mean(values: Float[np.ndarray, "s"]) -> tuple[float, float]:
    n = len(values)
    return float(values.mean()), float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5)


def _train(
    tasks: Sequence[ShortcutTask],
    samples: int,
    hidden: Sequence[int],
    activation: Callable[[Tensor], Tensor],
    lr: float,
    epochs: int,
    device: str,
) -> Callable[[int, Tensor], Tensor]:
    """Train a network for every task, all at once, on the logistic loss; returns (number of task, inputs) → scores."""
    drawn = [task.sample(samples, seed=task.seed) for task in tasks]
    x = torch.stack([d.inputs for d in drawn]).to(device, torch.float32)
    y = torch.stack([d.targets for d in drawn]).to(device, torch.float32)
    sizes = [x.shape[2], *hidden, 1]
    weights: list[Tensor] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        per_seed = {}
        for task in tasks:  # the same start for every amplification of a seed
            generator = torch.Generator().manual_seed(1000 * task.seed + len(weights))
            bound = 1 / math.sqrt(fan_in)
            shapes = ((fan_in, fan_out), (1, fan_out))
            per_seed[task.seed] = [(2 * torch.rand(shape, generator=generator) - 1) * bound for shape in shapes]
        for part in (0, 1):
            stacked = torch.stack([per_seed[task.seed][part] for task in tasks])
            weights.append(stacked.to(device).requires_grad_())
    optimizer = torch.optim.SGD(weights, lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = lr * (1 - epoch / epochs)  # else the last step's noise is measured
        for batch in torch.randperm(samples, generator=generator).to(device).split(128):
            scores = _forward(weights, x[:, batch], activation)
            loss = nn.functional.softplus(-y[:, batch] * scores).mean(1).sum()  # no network sees another's gradient
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                weight.grad = gradient
            optimizer.step()

    def scores_of(number: int, inputs: Tensor) -> Tensor:
        own = [weight[number : number + 1].detach() for weight in weights]
        return _forward(own, inputs[None].to(device, torch.float32), activation)[0]

    return scores_of


def _forward(weights: Sequence[Tensor], x: Float[Tensor, "E n d"], activation: Any) -> Float[Tensor, "E n"]:
    for layer in range(0, len(weights), 2):
        x = torch.baddbmm(weights[layer + 1], x, weights[layer])
        if layer + 2 < len(weights):
            x = activation(x)
    return x[..., 0]


def _converged(task: ShortcutTask, samples: int, seed: int) -> Callable[[Tensor], np.ndarray]:
    drawn = task.sample(samples, seed=seed)
    model = LogisticRegression(C=1e4, max_iter=1000).fit(drawn.inputs.numpy(), drawn.targets.numpy())
    return lambda inputs: model.decision_function(inputs.numpy())


def _kernels(
    alphas: Sequence[float], depths: Sequence[int], seeds: int, samples: int
) -> dict[int, dict[str, Float[np.ndarray, "a s"]]]:
    """The shortcut's share of the sensitivities ``∂f/∂z`` and the bias of kernel regression, predictivities .99."""
    found = {}
    for depth in depths:
        share, bias = np.empty((2, len(alphas), seeds))
        for i, alpha in enumerate(alphas):
            for seed in range(seeds):
                task = ShortcutTask(0.99, 0.99, alpha_s=alpha, seed=seed)
                drawn = task.sample(samples, seed=seed)
                probe = KernelShortcutProbe(FullyConnectedNTK(depth), delta=0.1).fit(drawn)
                shortcut, core = probe.sensitivities(task, drawn.latents[:200]).mean(0).tolist()
                share[i, seed] = shortcut / (abs(shortcut) + abs(core))
                bias[i, seed] = shortcut_bias(probe, task).bias
        found[depth] = {"share": share, "bias": bias}
    return found


def _figure(
    alphas: Sequence[float],
    bias: dict[str, np.ndarray],
    kernels: dict[int, dict[str, np.ndarray]],
) -> Figure:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, values in bias.items():
        error = values.std(1) / values.shape[1] ** 0.5
        left.errorbar(alphas, values.mean(1), error, marker="o", markersize=4, capsize=2, label=name)
    left.axhline(0, color="0.6", linewidth=0.8)
    left.set_ylabel("shortcut bias")
    left.set_title("networks, predictivities .85 and .9", fontsize=10)
    for depth, values in kernels.items():
        error = values["share"].std(1) / values["share"].shape[1] ** 0.5
        label = "linear kernel" if depth == 1 else f"tangent kernel, {depth} layers"
        right.errorbar(alphas, values["share"].mean(1), error, marker="o", markersize=4, capsize=2, label=label)
    right.set_ylabel("share of the sensitivity that is to the shortcut")
    right.set_title("kernel regression, predictivities .99 and .99", fontsize=10)
    for axis in (left, right):
        axis.set_xlabel("amplification of the shortcut")
        axis.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=8,
    slug="shortcut-learning",
    statement=(
        "Networks with a hidden layer prefer the more available of two features to the more predictive one, the more "
        "so the deeper they are and the more available it is; linear models hardly do. The tangent kernel explains it."
    ),
    baselines=(
        "the Bayes rule",
        "linear models, trained alike and to convergence",
        "regression with the linear kernel at the same ridge",
    ),
    measure=measure,
    presets={
        "quick": {
            "alphas": (1.0, 5.0),
            "seeds": 8,
            "samples": 1000,
            "width": 64,
            "epochs": 100,
            "kernel_depths": (1, 2, 3),
            "kernel_seeds": 3,
            "kernel_samples": 300,
        },
        "full": {
            "alphas": (1.0, 2.0, 5.0, 10.0),
            "seeds": 10,
            "samples": 1600,
            "width": 64,
            "epochs": 60,
            "kernel_depths": (1, 2, 3, 4),
            "kernel_seeds": 5,
            "kernel_samples": 400,
        },
        "gpu": {
            "alphas": (1.0, 2.0, 3.0, 4.0, 5.0),
            "seeds": 50,
            "samples": 3200,
            "width": 512,
            "epochs": 200,
            "kernel_depths": (1, 2, 3, 4),
            "kernel_seeds": 20,
            "kernel_samples": 1000,
            "device": "cuda",
        },
    },
)
