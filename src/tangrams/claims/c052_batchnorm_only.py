"""Training the scales and shifts of BatchNorm alone makes a random convolutional network accurate [052].

A residual network is trained from the same start in several ways: all parameters; BatchNorm only; the output layer
only; both; as many randomly drawn entries of the convolutions as BatchNorm has parameters, two for each output channel,
with the mask on the update; and all but BatchNorm. Compared are test accuracies over seeds; the share of scales near
zero and of channels that are always off; what setting small scales to zero costs; and whether BatchNorm-only gains more
from depth or from width when the number of its parameters is (nearly) the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.claims._networks import samples_of
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled, flip_and_crop, load
from tangrams.lens import dead_channels, gamma_statistics, small_gammas_zeroed
from tangrams.models import CifarResNet
from tangrams.nn import (
    TrainingRecipe,
    UpdateMask,
    batchnorm_layers,
    freeze_except,
    output_layer,
    random_entries_per_channel,
)

_THRESHOLDS = (0.01, 0.05)
"""Below the first a channel counts as switched off; training that is short leaves more below the second."""


def measure(
    data: str | None,
    size: int,
    num_train: int,
    num_test: int,
    depth: int,
    width: int,
    deeper: int,
    wider: int,
    recipe: TrainingRecipe,
    seeds: int,
    sweep_seeds: int,
    device: str = "cpu",
) -> Evidence:
    """Train every way on every seed, and BatchNorm alone in a deeper and a wider network."""
    train, test = _images(data, size, num_train, num_test, device)
    augment = data is not None
    accuracy: dict[str, list[float]] = {name: [] for name in _WAYS}
    trained: dict[str, int] = {}
    diagnostics: dict[str, list[dict[str, float]]] = {"BatchNorm only": [], "all": []}
    histogram: dict[str, Any] = {}
    for seed in range(seeds):
        for name, choose in _WAYS.items():
            model = _network(depth, width, train, seed, device)
            trained[name] = _train(model, choose, train, recipe, seed, augment)
            accuracy[name].append(_accuracy(model, test))
            if name in diagnostics:
                diagnostics[name].append(_diagnose(model, test))
                if seed == 0:
                    counts = [s.counts for s in gamma_statistics(model, bins=40).values()]
                    histogram[name] = torch.stack(counts).sum(0).tolist()
    sweep: dict[str, Any] = {}
    for shape in ((deeper, width), (depth, wider)):
        values = []
        for seed in range(sweep_seeds):
            model = _network(*shape, train, seed, device)
            count = _train(model, _batchnorm, train, recipe, seed, augment)
            values.append(_accuracy(model, test))
        sweep[f"depth {shape[0]}, width {shape[1]}"] = {"trained": count, "accuracy": values}
    return _conclude(accuracy, trained, diagnostics, histogram, sweep, (depth, width))


def _images(data: str | None, size: int, num_train: int, num_test: int, device: str) -> tuple[Labelled, Labelled]:
    """Digits brought up to the size, or a data set's images brought down to it; centred and scaled as a whole."""
    if data is None:
        parts = samples_of(None, num_train, 0)
    else:
        split = load(data, num_train=num_train, num_test=num_test)
        parts = split.train, split.test
    inputs = []
    for part in parts:
        x = part.inputs.to(device)
        inputs.append(x if x.shape[-1] == size else F.interpolate(x, (size, size), mode="bilinear", antialias=True))
    mean, std = inputs[0].mean((0, 2, 3), keepdim=True), inputs[0].std((0, 2, 3), keepdim=True)
    train, test = (Labelled((x - mean) / std, part.targets.to(device)) for x, part in zip(inputs, parts, strict=True))
    return train, test


def _network(depth: int, width: int, train: Labelled, seed: int, device: str) -> CifarResNet:
    generator = torch.Generator().manual_seed(seed)
    model = CifarResNet(depth, width, in_channels=train.inputs.shape[1], generator=generator)
    return model.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


_Choice = Callable[[CifarResNet, int], tuple[list[nn.Parameter], UpdateMask | None]]


def _everything(model: CifarResNet, seed: int) -> tuple[list[nn.Parameter], None]:
    return freeze_except(model, None), None


def _batchnorm(model: CifarResNet, seed: int) -> tuple[list[nn.Parameter], None]:
    return freeze_except(model, [*batchnorm_layers(model).values()]), None


def _output(model: CifarResNet, seed: int) -> tuple[list[nn.Parameter], None]:
    return freeze_except(model, output_layer(model)), None


def _batchnorm_and_output(model: CifarResNet, seed: int) -> tuple[list[nn.Parameter], None]:
    return freeze_except(model, [*batchnorm_layers(model).values(), output_layer(model)]), None


def _all_but_batchnorm(model: CifarResNet, seed: int) -> tuple[list[nn.Parameter], None]:
    own = {id(p) for layer in batchnorm_layers(model).values() for p in layer.parameters()}
    return freeze_except(model, lambda name, p: id(p) not in own), None


def _random_entries(model: CifarResNet, seed: int) -> tuple[list[nn.Parameter], UpdateMask]:
    masks = random_entries_per_channel(model, 2, seed=seed)
    return freeze_except(model, [*masks]), UpdateMask(model, masks)


_WAYS: dict[str, _Choice] = {
    "all": _everything,
    "all but BatchNorm": _all_but_batchnorm,
    "BatchNorm and output": _batchnorm_and_output,
    "BatchNorm only": _batchnorm,
    "random entries": _random_entries,
    "output only": _output,
}


def _train(
    model: CifarResNet, choose: _Choice, train: Labelled, recipe: TrainingRecipe, seed: int, augment: bool
) -> int:
    """Train what is chosen; how many entries that is."""
    parameters, mask = choose(model, seed)
    optimizer = recipe.optimizer(parameters)
    if mask is not None:
        mask.attach(optimizer)
    x, y = train.inputs.contiguous(memory_format=torch.channels_last), train.targets
    steps = len(x) // recipe.batch_size
    schedule = recipe.scheduler(optimizer, steps)
    generator = torch.Generator().manual_seed(100 + seed)
    model.train()
    for _ in range(recipe.epochs):
        order = torch.randperm(len(x), generator=generator).to(x.device)
        for batch in order[: steps * recipe.batch_size].split(recipe.batch_size):
            images = flip_and_crop(x[batch], x.shape[-1] // 8, generator=generator) if augment else x[batch]
            optimizer.zero_grad()
            F.cross_entropy(model(images), y[batch]).backward()
            optimizer.step()
            schedule.step()
    return sum(p.numel() for p in parameters) if mask is None else mask.num_trained


@torch.no_grad()
def _accuracy(model: CifarResNet, test: Labelled) -> float:
    model.eval()
    predicted = torch.cat([model(batch).argmax(1) for batch in test.inputs.split(500)])
    return float((predicted == test.targets).double().mean())


def _diagnose(model: CifarResNet, test: Labelled) -> dict[str, float]:
    """Shares over all channels, and the accuracy without the small scales."""
    found = {}
    for threshold in _THRESHOLDS:
        statistics = gamma_statistics(model, threshold).values()
        total = sum(int(s.counts.sum()) for s in statistics)
        found[f"gamma below {threshold}"] = sum(s.near_zero * int(s.counts.sum()) for s in statistics) / total
        before = _accuracy(model, test)
        with small_gammas_zeroed(model, threshold):
            found[f"accuracy lost by zeroing below {threshold}"] = before - _accuracy(model, test)
    dead: list[Tensor] = [*dead_channels(model, test.inputs.split(500)).values()]
    found["dead channels"] = float(torch.cat(dead).double().mean())
    return found


def _conclude(
    accuracy: dict[str, list[float]],
    trained: dict[str, int],
    diagnostics: dict[str, list[dict[str, float]]],
    histogram: dict[str, Any],
    sweep: dict[str, Any],
    shape: tuple[int, int],
) -> Evidence:
    mean = {name: float(np.mean(values)) for name, values in accuracy.items()}
    off = {name: {key: float(np.mean([r[key] for r in rows])) for key in rows[0]} for name, rows in diagnostics.items()}
    only = "BatchNorm only"
    deep, wide = (float(np.mean(entry["accuracy"])) for entry in sweep.values())
    near, nearly = (f"gamma below {threshold}" for threshold in _THRESHOLDS)
    lost = f"accuracy lost by zeroing below {_THRESHOLDS[0]}"
    good = [
        mean[only] >= mean["random entries"] + 0.1,
        mean[only] > mean["output only"],
        off[only][near] > off["all"][near] and off[only][lost] < 0.02,
        deep > wide,
    ]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    gap = np.subtract(accuracy[only], accuracy["random entries"])
    error = f" ± {np.std(gap, ddof=1) / len(gap) ** 0.5:.1%}" if len(gap) > 1 else ""
    sentence = (
        f"Test accuracy at depth {shape[0]}, width {shape[1]}, over {len(gap)} seed(s): all {mean['all']:.1%}, "
        f"BatchNorm only {mean[only]:.1%} with {trained[only]} parameters, as many random entries "
        f"{mean['random entries']:.1%} (gap {gap.mean():.1%}{error}), output only {mean['output only']:.1%}, BatchNorm "
        f"and output {mean['BatchNorm and output']:.1%}, all but BatchNorm {mean['all but BatchNorm']:.1%}. BatchNorm "
        f"only leaves {off[only][near]:.1%} of the scales below {_THRESHOLDS[0]} (all: {off['all'][near]:.1%}), "
        f"{off[only][nearly]:.1%} below {_THRESHOLDS[1]} (all: {off['all'][nearly]:.1%}); without the former it loses "
        f"{off[only][lost]:.1%}. {' against '.join(sweep)}: {deep:.1%} against {wide:.1%}."
    )
    numbers: dict[str, Any] = {
        "accuracy": accuracy,
        "mean_accuracy": mean,
        "trained": trained,
        "switched_off": off,
        "switched_off_by_seed": diagnostics,
        "gamma_histogram_seed_0": histogram,
        "batchnorm_only_deeper_or_wider": sweep,
    }
    return Evidence(verdict, sentence, numbers, _figure(accuracy, trained, histogram, sweep, shape))


def _figure(accuracy: Any, trained: Any, histogram: Any, sweep: Any, shape: tuple[int, int]) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = list(accuracy)
    left.barh([f"{n} ({trained[n]})" for n in names], [np.mean(accuracy[n]) for n in names], color="C0")
    for place, name in enumerate(names):
        left.plot(accuracy[name], [place] * len(accuracy[name]), "k.", markersize=4)
    left.invert_yaxis()
    left.set_title("test accuracy (entries trained)", fontsize=10)
    for name, counts in histogram.items():
        middle.stairs(counts, np.linspace(0, 1, len(counts) + 1), label=name)
    middle.set_xlabel("|γ| / largest")
    middle.set_title("scales after training, seed 0", fontsize=10)
    middle.legend(fontsize=7)
    bars = {f"depth {shape[0]}, width {shape[1]}": accuracy["BatchNorm only"]}
    bars |= {name: entry["accuracy"] for name, entry in sweep.items()}
    right.bar([name.replace(", ", "\n") for name in bars], [np.mean(values) for values in bars.values()], color="C1")
    right.tick_params(axis="x", labelsize=7)
    right.set_title("BatchNorm only, deeper or wider", fontsize=10)
    return figure


CLAIM = Claim(
    number=52,
    slug="batchnorm-only",
    statement=(
        "A convolutional network with random frozen weights becomes accurate by training the scales and shifts of "
        "BatchNorm alone, far more so than by training as many random entries elsewhere, and more with depth than with "
        "width; it switches channels off to do so."
    ),
    baselines=(
        "as many randomly drawn entries of the convolutions",
        "the output layer alone",
        "all parameters",
        "all but BatchNorm",
    ),
    measure=measure,
    presets={
        "quick": {
            "data": None,
            "size": 16,
            "num_train": 1000,
            "num_test": 450,
            "depth": 14,
            "width": 8,
            "deeper": 26,
            "wider": 15,
            "recipe": TrainingRecipe(batch_size=32, epochs=5, lr=0.1, drops=(3, 4)),
            "seeds": 1,
            "sweep_seeds": 1,
        },
        "full": {
            "data": "cifar10",
            "size": 16,
            "num_train": 5000,
            "num_test": 2000,
            "depth": 14,
            "width": 8,
            "deeper": 26,
            "wider": 15,
            "recipe": TrainingRecipe(batch_size=64, epochs=8, lr=0.1, drops=(5, 7)),
            "seeds": 3,
            "sweep_seeds": 2,
        },
        "gpu": {
            "data": "cifar10",
            "size": 32,
            "num_train": 50_000,
            "num_test": 10_000,
            "depth": 56,
            "width": 16,
            "deeper": 110,
            "wider": 32,
            "recipe": TrainingRecipe(batch_size=128, epochs=160, lr=0.1, drops=(80, 120)),
            "seeds": 3,
            "sweep_seeds": 3,
            "device": "cuda",
        },
    },
    data={"full": ("cifar10",), "gpu": ("cifar10",)},
)
