"""Nonlinear networks prefer the more available of two predictive features, linear ones hardly [008].

Networks with no, one and two hidden layers are trained by SGD on the paper's generator (core .9, shortcut .85,
covariance .6), the shortcut amplified, embeddings and samples shared; their bias is their reliance on the shortcut less
that of the Bayes rule. A linear model fitted to convergence stands beside the one trained by SGD, since a badly
conditioned linear fit shows a bias of its own. The tangent kernel's account is regression on the same task with kernels
of one to four layers, each at the ridge that is best for it by leave-one-out: at one ridge for all, a linear kernel is
biased too. On real images the shortcut is the brightness of a strip of pixels beside the image, its availability how
many there are; asked is what the accuracy loses where the strip speaks for the other class.

The log-odds of this generator are linear in the latents, whatever the amplification: a network that can express them
has no bias once enough steps on enough samples have decided. What is measured lies on the way there, where the
amplified feature, with the larger gradient, comes first, and networks forget that later than linear models. So samples
and epochs are varied, and the order is asked for at each. At a constant rate the last step adds noise that grows with
the square of the amplification and exceeds the effect; the rate falls to zero here.
"""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from tangrams.claims._networks import samples_of
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled, ShortcutTask, load
from tangrams.kernels import FullyConnectedNTK
from tangrams.lens import KernelShortcutProbe, shortcut_bias

LINEAR, CONVERGED = "linear, SGD", "linear, converged"
_NETWORKS: dict[str, tuple[int, Callable[[Tensor], Tensor]]] = {
    LINEAR: (0, torch.relu),
    "one ReLU layer": (1, torch.relu),
    "one tanh layer": (1, torch.tanh),
    "two ReLU layers": (2, torch.relu),
}
_NONLINEAR = tuple(name for name in _NETWORKS if name != LINEAR)
_CORE, _SHORTCUT = 0.9, 0.85
"""Predictivities."""


def measure(
    alphas: Sequence[float],
    asked: float,
    seeds: int,
    runs: Sequence[tuple[int, int]],
    width: int,
    kernel_depths: Sequence[int],
    kernel_seeds: int,
    kernel_samples: int,
    images: Sequence[Mapping[str, Any]],
    device: str = "cpu",
) -> Evidence:
    """Bias of networks over runs (samples, epochs) and amplifications, of kernels, and strips beside images.

    The order of the paper is asked for at the amplification ``asked`` and at the largest one.
    """
    bias = {
        f"{samples} samples, {epochs} epochs": _biases(alphas, seeds, samples, width, epochs, device)
        for samples, epochs in runs
    }
    kernels = _kernels(alphas, kernel_depths, kernel_seeds, kernel_samples)
    strips = {_name(**task): _strips(**task, width=width, device=device) for task in images}
    places = sorted({list(alphas).index(asked), len(alphas) - 1})
    rises = {run: {a: {k: _mean(v[a] - v[0]) for k, v in of.items()} for a in places} for run, of in bias.items()}
    lean = {depth: _mean(k["share"][-1] - k["share"][0]) for depth, k in kernels.items()}
    losses = {task: {name: _mean(v[0] - v[-1]) for name, v in of.items()} for task, of in strips.items()}
    order = {run: {f"{alphas[a]:g}": _ordered(rises[run][a], of, a) for a in places} for run, of in bias.items()}
    good = [found for at in order.values() for found in at.values()]
    good += [all(lean[depth][0] > lean[1][0] for depth in kernel_depths if depth > 1)]
    good += [all(of[name][0] > of[LINEAR][0] for name in _NONLINEAR) for of in losses.values()]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    parts = [f"{run}, amplified {alphas[a]:g}: {_span(at)}" for run, of in rises.items() for a, at in of.items()]
    layers = {"linear" if depth == 1 else f"{depth} layers": value for depth, value in lean.items()}
    sentence = (
        f"Amplifying the shortcut raises the bias of nonlinear networks over {seeds} seeds (in brackets linear ones), "
        f"{'; '.join(parts)}. In kernel regression on {kernel_samples} samples, at the best ridge, an amplification of "
        f"{alphas[-1]:g} raises the shortcut's share of the sensitivity: {_list(layers)}."
    )
    for task, of in losses.items():
        sentence += f" A larger strip beside images of {task} costs accuracy where it misleads: {_list(of)}."
    numbers: dict[str, Any] = {
        "alphas": list(alphas),
        "bias": {run: {name: v.tolist() for name, v in of.items()} for run, of in bias.items()},
        "rise": {
            run: {f"{alphas[a]:g}": {name: _row(v) for name, v in at.items()} for a, at in of.items()}
            for run, of in rises.items()
        },
        "reliance_of_the_bayes_rule": shortcut_bias(lambda x: x[:, 0], ShortcutTask(_SHORTCUT, _CORE)).optimal_reliance,
        "kernel": {str(depth): {name: v.tolist() for name, v in k.items()} for depth, k in kernels.items()},
        "kernel_sensitivity_rise": {str(depth): _row(v) for depth, v in lean.items()},
        "misled_accuracy": {task: {name: v.tolist() for name, v in of.items()} for task, of in strips.items()},
        "misled_loss": {task: {name: _row(v) for name, v in of.items()} for task, of in losses.items()},
        "ordered_as_claimed": order,
    }
    return Evidence(verdict, sentence, numbers, _figure(alphas, bias, kernels, strips, images))


def _ordered(rise: Mapping[str, tuple[float, float]], bias: Mapping[str, np.ndarray], place: int) -> bool:
    """Whether every nonlinear network's bias rises more than the linear ones', and depth sorts the biases."""
    at = {name: float(values[place].mean()) for name, values in bias.items()}
    more = all(rise[name][0] > max(rise[LINEAR][0], rise[CONVERGED][0]) for name in _NONLINEAR)
    return more and at[LINEAR] < at["one ReLU layer"] < at["two ReLU layers"]


def _mean(values: Float[np.ndarray, "s"]) -> tuple[float, float]:
    n = len(values)
    return float(values.mean()), float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5)


def _row(value: tuple[float, float]) -> dict[str, float]:
    return {"mean": value[0], "interval_95": value[1]}


def _list(values: Mapping[str, tuple[float, float]]) -> str:
    return ", ".join(f"{name} {mean:+.3f} ± {half:.3f}" for name, (mean, half) in values.items())


def _span(rises: Mapping[str, tuple[float, float]]) -> str:
    """From the least to the greatest rise, and the widest interval."""
    spans = []
    for names in (_NONLINEAR, (LINEAR, CONVERGED)):
        means, halves = zip(*(rises[name] for name in names), strict=True)
        spans.append(f"{min(means):+.3f} to {max(means):+.3f} ± {max(halves):.3f}")
    return f"{spans[0]} ({spans[1]})"


def _biases(
    alphas: Sequence[float], seeds: int, samples: int, width: int, epochs: int, device: str
) -> dict[str, Float[np.ndarray, "a s"]]:
    """Of every network and of the converged linear model."""
    tasks = [ShortcutTask(_SHORTCUT, _CORE, alpha_s=alpha, seed=seed) for alpha in alphas for seed in range(seeds)]
    drawn = [task.sample(samples, seed=task.seed) for task in tasks]
    x, y = torch.stack([d.inputs for d in drawn]), torch.stack([d.targets for d in drawn])
    bias = {}
    for name in _NETWORKS:
        trained = _train(name, x, y, [task.seed for task in tasks], width, epochs, device)
        found = [shortcut_bias(partial(trained, e), task).bias for e, task in enumerate(tasks)]
        bias[name] = np.array(found).reshape(len(alphas), seeds)
    found = []
    for task, d in zip(tasks, drawn, strict=True):
        model = LogisticRegression(C=1e4, max_iter=1000).fit(d.inputs.numpy(), d.targets.numpy())
        found.append(shortcut_bias(lambda inputs, m=model: m.decision_function(inputs.numpy()), task).bias)
    return {**bias, CONVERGED: np.array(found).reshape(len(alphas), seeds)}


def _train(
    name: str,
    x: Float[Tensor, "E n d"],
    y: Float[Tensor, "E n"],
    seeds: Sequence[int],
    width: int,
    epochs: int,
    device: str,
) -> Callable[[int, Tensor], Tensor]:
    """Train a network on each of E sets, all at once, on the logistic loss; returns (which, inputs) → scores."""
    depth, activation = _NETWORKS[name]
    x, y = x.to(device, torch.float32), y.to(device, torch.float32)
    lr = 0.05 if depth else 0.1
    sizes = [x.shape[2], *[width] * depth, 1]
    weights: list[Tensor] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        bound, shapes = 1 / math.sqrt(fan_in), ((fan_in, fan_out), (1, fan_out))
        per_seed = {}
        for seed in set(seeds):  # the same start for every availability of a seed
            generator = torch.Generator().manual_seed(1000 * seed + len(weights))
            per_seed[seed] = [(2 * torch.rand(shape, generator=generator) - 1) * bound for shape in shapes]
        for part in (0, 1):
            weights.append(torch.stack([per_seed[seed][part] for seed in seeds]).to(device).requires_grad_())
    optimizer = torch.optim.SGD(weights, lr=lr, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        optimizer.param_groups[0]["lr"] = lr * (1 - epoch / epochs)  # else the last step's noise is measured
        for batch in torch.randperm(x.shape[1], generator=generator).to(device).split(128):
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


def _kernels(
    alphas: Sequence[float], depths: Sequence[int], seeds: int, samples: int
) -> dict[int, dict[str, Float[np.ndarray, "a s"]]]:
    """The shortcut's share of the sensitivities ``∂f/∂z``, and the bias; the ridge by leave-one-out."""
    found = {}
    for depth in depths:
        share, bias = np.empty((2, len(alphas), seeds))
        for (i, alpha), seed in itertools.product(enumerate(alphas), range(seeds)):
            task = ShortcutTask(_SHORTCUT, _CORE, alpha_s=alpha, seed=seed)
            drawn = task.sample(samples, seed=seed)
            probe = KernelShortcutProbe(FullyConnectedNTK(depth)).fit(drawn)
            shortcut, core = probe.sensitivities(task, drawn.latents[:200]).mean(0).tolist()
            share[i, seed] = shortcut / (abs(shortcut) + abs(core))
            bias[i, seed] = shortcut_bias(probe, task).bias
        found[depth] = {"share": share, "bias": bias}
    return found


def _name(*, name: str, classes: tuple[Sequence[int], Sequence[int]], **settings: Any) -> str:
    return f"{name}, classes {' against '.join(', '.join(map(str, group)) for group in classes)}"


def _strips(
    *,
    name: str,
    classes: tuple[Sequence[int], Sequence[int]],
    samples: int,
    pool: int,
    areas: Sequence[int],
    predictivity: float,
    seeds: int,
    epochs: int,
    width: int,
    device: str,
) -> dict[str, Float[np.ndarray, "a s"]]:
    """Accuracy on test images whose strip speaks for the other class, by network, number of lit pixels and seed."""
    parts = _two_classes(name, classes, pool)
    tests: list[tuple[Tensor, Tensor]] = []
    inputs, labels = [], []
    for area, seed in itertools.product(areas, range(seeds)):
        generator = torch.Generator().manual_seed(seed)
        index = torch.randperm(len(parts[0].targets), generator=generator)[:samples]
        x, y = parts[0].inputs[index], parts[0].targets[index]
        centre, scale = x.mean(), x.std()
        made = []
        for images, targets in ((x, y), (parts[1].inputs, parts[1].targets)):
            z = targets * float(stats.norm.ppf(predictivity)) + torch.randn(len(targets), generator=generator)
            lit = torch.arange(max(areas)) < area
            made.append((torch.cat([(images - centre) / scale, z[:, None] * lit], 1), targets, z))
        inputs.append(made[0][0])
        labels.append(y)
        test, targets, z = made[1]
        tests.append((test[z * targets < 0], targets[z * targets < 0]))
    found = {}
    for network in _NETWORKS:
        each = [seed for _ in areas for seed in range(seeds)]
        trained = _train(network, torch.stack(inputs), torch.stack(labels), each, width, epochs, device)
        right = [float((trained(e, x).cpu() * y > 0).double().mean()) for e, (x, y) in enumerate(tests)]
        found[network] = np.array(right).reshape(len(areas), seeds)
    return found


def _two_classes(name: str, classes: tuple[Sequence[int], Sequence[int]], pool: int) -> tuple[Labelled, Labelled]:
    """Grey images as vectors, labels −1 for the first group of classes and 1 for the second."""
    if name == "digits":
        parts = samples_of(None, 10_000, 0)
    else:
        split = load(name)
        parts = split.train, split.test
    found = []
    for part in parts:
        one, other = (torch.isin(part.targets, torch.tensor(group)) for group in classes)
        images = avg_pool2d(part.inputs[one | other].mean(1, keepdim=True), pool)
        found.append(Labelled(images.flatten(1), 1 - 2 * one[one | other].float()))
    return found[0], found[1]


def _figure(
    alphas: Sequence[float],
    bias: Mapping[str, Mapping[str, np.ndarray]],
    kernels: Mapping[int, Mapping[str, np.ndarray]],
    strips: Mapping[str, Mapping[str, np.ndarray]],
    images: Sequence[Mapping[str, Any]],
) -> Figure:
    panels: dict[str, tuple[Sequence[float], Mapping[str, np.ndarray]]] = {
        run: (alphas, of) for run, of in bias.items()
    }
    layers = {"linear" if depth == 1 else f"{depth} layers": k["share"] for depth, k in kernels.items()}
    panels["tangent kernels"] = (alphas, layers)
    panels |= {
        f"strip beside {name}": (task["areas"], of) for task, (name, of) in zip(images, strips.items(), strict=True)
    }
    columns = 3
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(3.8 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (title, (x, of)) in zip(axes, panels.items(), strict=False):
        for name, values in of.items():
            error = values.std(1, ddof=1) / values.shape[1] ** 0.5
            axis.errorbar(x, values.mean(1), error, marker="o", markersize=4, capsize=2, label=name)
        strip = title.startswith("strip")
        axis.set_xlabel("lit pixels" if strip else "amplification of the shortcut")
        kernel = title == "tangent kernels"
        axis.set_ylabel(
            "accuracy where it misleads" if strip else "share of the sensitivity" if kernel else "shortcut bias"
        )
        axis.set_title(textwrap.fill(title, 36), fontsize=9)
        axis.legend(fontsize=7)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    return figure


_CIFAR: dict[str, Any] = {
    "name": "cifar10",
    "classes": ((0,), (1,)),
    "samples": 2000,
    "pool": 2,
    "areas": (1, 4, 16),
    "predictivity": 0.7,
    "seeds": 5,
    "epochs": 20,
}

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
        "regression with the linear kernel at its best ridge",
    ),
    measure=measure,
    presets={
        "quick": {
            "alphas": (1.0, 5.0),
            "asked": 5.0,
            "seeds": 8,
            "runs": ((1000, 100),),
            "width": 64,
            "kernel_depths": (1, 2, 3),
            "kernel_seeds": 6,
            "kernel_samples": 300,
            "images": (
                {
                    "name": "digits",
                    "classes": ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9)),
                    "samples": 1000,
                    "pool": 1,
                    "areas": (1, 16),
                    "predictivity": 0.7,
                    "seeds": 5,
                    "epochs": 20,
                },
            ),
        },
        "full": {
            "alphas": (1.0, 5.0, 10.0),
            "asked": 5.0,
            "seeds": 8,
            "runs": ((1600, 60), (3200, 20), (3200, 100), (3200, 200)),
            "width": 64,
            "kernel_depths": (1, 2, 3, 4),
            "kernel_seeds": 10,
            "kernel_samples": 1000,
            "images": (_CIFAR,),
        },
        "gpu": {
            "alphas": (1.0, 2.0, 3.0, 5.0, 10.0),
            "asked": 5.0,
            "seeds": 50,
            "runs": ((1600, 60), (3200, 20), (3200, 100), (3200, 200), (12_800, 200)),
            "width": 512,
            "kernel_depths": (1, 2, 3, 4),
            "kernel_seeds": 20,
            "kernel_samples": 1000,
            "images": (_CIFAR, {**_CIFAR, "classes": ((3,), (5,)), "seeds": 20}),
            "device": "cuda",
        },
    },
    data={"full": ("cifar10",), "gpu": ("cifar10",)},
)
