"""LCMD on sketched gradients, labelled samples given, is the best way to choose batches to label for regression [007].

The benchmark's loop at reduced size: the same initial, validation and test samples for every method, a fresh network
each round, and as score the mean log RMSE over the rounds, less that of random batches on the same split. Against it
stand the benchmark's other six selections, each in its own mode and on the features that it prefers, and every
selection, this one too, on the last layer's features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from scipy import stats
from sklearn.pipeline import Pipeline, make_pipeline

from tangrams.claims.base import Claim, Evidence
from tangrams.data import friedman1, load, skewed_spiral
from tangrams.features import TangentFeatures
from tangrams.learners import (
    BAIT,
    ACSHyperRandomFeatures,
    ActiveLearningCurve,
    ActiveLearningLoop,
    BatchSelector,
    FrankWolfe,
    KMeansPlusPlus,
    LargestClusterMaxDistance,
    MaxDeterminant,
    MaxDiagonal,
    MaxDistance,
    PoolModeLoop,
    PosteriorFeatures,
    RandomSelection,
    TabularMLPRegressor,
    UnitDiagonal,
)
from tangrams.operators import KhatriRaoSketch

OURS, RANDOM = "LCMD, gradients", "random"


def _posterior(sketch: int) -> Pipeline:
    return make_pipeline(UnitDiagonal(), PosteriorFeatures(0.1))


class _Selection(NamedTuple):
    loop: type[ActiveLearningLoop]
    selector: Callable[[int], BatchSelector]
    transformation: Callable[[int], Any] | None = None  # of the sketch's size


_SELECTIONS = {
    "LCMD": _Selection(ActiveLearningLoop, LargestClusterMaxDistance),
    "k-means++": _Selection(ActiveLearningLoop, KMeansPlusPlus),
    "distance": _Selection(ActiveLearningLoop, MaxDistance),
    "determinant": _Selection(PoolModeLoop, MaxDeterminant, _posterior),
    "variance": _Selection(PoolModeLoop, MaxDiagonal, _posterior),
    "BAIT": _Selection(PoolModeLoop, partial(BAIT, overselection=2.0), _posterior),
    "Frank–Wolfe": _Selection(PoolModeLoop, FrankWolfe, ACSHyperRandomFeatures),
}
_LAYERS = ("gradients", "last layer")
_METHODS = (RANDOM, *(f"{name}, {layers}" for name in _SELECTIONS for layers in _LAYERS))
_GENERATED = {"friedman 1": friedman1, "skewed spiral": skewed_spiral}


class _Split(NamedTuple):
    pool: tuple[Any, np.ndarray]
    validation: tuple[Any, np.ndarray]
    test: tuple[Any, np.ndarray]


def measure(
    problems: Sequence[str],
    methods: Sequence[str],
    seeds: int,
    pool: int,
    test: int,
    initial: int,
    batch: int,
    rounds: int,
    width: int,
    epochs: int,
    sketch: int,
    device: str = "cpu",
) -> Evidence:
    """Run every method on every problem and seed."""
    curves: dict[str, dict[str, list[ActiveLearningCurve]]] = {name: {m: [] for m in methods} for name in problems}
    for name in problems:
        X, y = _samples(name)
        for seed in range(seeds):
            split = _split(X, y, seed, pool, test, initial, device)
            for method in methods:
                regressor = TabularMLPRegressor((width, width), epochs=epochs, random_state=1000 * seed)
                loop = _loop(method, regressor, batch, sketch, seed)
                start = np.arange(initial)
                run = loop.run(*split.pool, start, rounds=rounds, test=split.test, validation=split.validation)
                curves[name][method].append(run)
    scores = {m: np.array([[c.mean_log_rmse for c in curves[p][m]] for p in problems]) for m in methods}
    gains = {m: scores[m] - scores[RANDOM] for m in methods if m != RANDOM}
    means = {m: _mean(g) for m, g in gains.items()}
    by_problem = {p: float(gains[OURS][i].mean()) for i, p in enumerate(problems)}
    rivals = {m: mean for m, (mean, _) in means.items() if m != OURS}
    ours, spread = means[OURS]
    best_rival = min(rivals, key=rivals.__getitem__)
    layers = {m.partition(",")[0]: _on_layers(means, m) for m in means if m.endswith("last layer")}
    parts = {
        "below random batches, by more than the 95 % interval": ours + spread < 0,
        "below random batches on every problem": all(gain < 0 for gain in by_problem.values()),
        "below every other method": ours < rivals[best_rival],
        "every selection better on gradients": all(gradients < last for gradients, last in layers.values()),
    }
    verdict = "holds" if all(parts.values()) else "holds in part" if ours < 0 else "does not hold"
    sentence = (
        f"Over {len(problems)} problems and {seeds} seeds LCMD on sketched gradients has a mean log RMSE "
        f"{-ours:.3f} ± {spread:.3f} below random batches (RMSE {np.exp(ours) - 1:+.0%}; lower on "
        f"{sum(gain < 0 for gain in by_problem.values())} of {len(problems)} problems); the best other method, "
        f"{best_rival}, {-rivals[best_rival]:.3f}; "
        + "; ".join(f"{name} {-a:.3f} on gradients, {-b:.3f} on the last layer" for name, (a, b) in layers.items())
        + f". Last layers are behind in {sum(a < b for a, b in layers.values())} of {len(layers)} selections."
    )
    numbers: dict[str, Any] = {
        "log_rmse_less_random": {m: {"mean": mean, "interval_95": half} for m, (mean, half) in means.items()},
        "log_rmse_less_random_by_problem": {
            m: dict(zip(problems, g.mean(1).tolist(), strict=True)) for m, g in gains.items()
        },
        "rmse": _errors(curves, "rmse"),
        "q99": _errors(curves, "q99"),
        "labels": curves[problems[0]][RANDOM][0].sizes,
        "seeds": seeds,
        "parts": parts,
    }
    return Evidence(verdict, sentence, numbers, _figure(curves, means))


def _mean(gains: Float[np.ndarray, "problems seeds"]) -> tuple[float, float]:
    """The mean over problems and seeds, and half of its 95 % interval over seeds, the problems being given."""
    by_seed = gains.mean(0)
    n = len(by_seed)
    return float(by_seed.mean()), float(stats.t.ppf(0.975, n - 1) * by_seed.std(ddof=1) / n**0.5)


def _errors(curves: dict[str, dict[str, list[ActiveLearningCurve]]], kind: str) -> dict[str, Any]:
    return {
        problem: {m: [[getattr(e, kind) for e in c.errors] for c in runs] for m, runs in of.items()}
        for problem, of in curves.items()
    }


def _on_layers(means: dict[str, tuple[float, float]], last: str) -> tuple[float, float]:
    """A selection's gain on gradients and on the last layer."""
    return means[last.replace("last layer", "gradients")][0], means[last][0]


def _loop(method: str, regressor: TabularMLPRegressor, batch: int, sketch: int, seed: int) -> ActiveLearningLoop:
    if method == RANDOM:
        return ActiveLearningLoop(regressor, RandomSelection(batch, random_state=seed), lambda model, X: X)
    name, layers = method.split(", ")
    chosen = _SELECTIONS[name]

    def features(model: TabularMLPRegressor, X: Any) -> Any:
        inputs = model.network_inputs(X)
        if layers == "last layer":
            return TangentFeatures(model.network_, params=[model.network_[-1]]).matrix(inputs)
        return (TangentFeatures(model.network_) >> KhatriRaoSketch(sketch, seed=seed)).matrix(inputs)

    transformation = chosen.transformation(sketch) if chosen.transformation else None
    selector = chosen.selector(batch).set_params(random_state=seed)
    return chosen.loop(regressor, selector, features, transformation)


def _samples(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All samples of a problem, targets standardised."""
    if name in _GENERATED:
        data = _GENERATED[name](20_000, 1, noise=0.1 if name == "friedman 1" else 0.01, seed=0).train
        X, y = data.inputs.numpy(), data.targets.numpy()
    elif name == "diamonds":
        columns = load(name)
        y = np.log(columns.pop("price"))
        numeric = [c[:, None] for c in columns.values() if c.dtype.kind == "f"]
        kinds = [c[:, None] == np.unique(c) for c in columns.values() if c.dtype.kind != "f"]
        X = np.concatenate([*numeric, *kinds], axis=1).astype(np.float64)
    else:
        table = load(f"uci_regression/{name}")
        X, y = table.inputs.numpy(), table.targets.numpy()
    return X, (y - y.mean()) / y.std()


def _split(X: np.ndarray, y: np.ndarray, seed: int, pool: int, test: int, initial: int, device: str) -> _Split:
    order = np.random.default_rng(seed).permutation(len(X))
    parts = np.split(order[: pool + test + 2 * initial], [pool, pool + 2 * initial])
    inputs = [X[index] if device == "cpu" else torch.as_tensor(X[index], device=device) for index in parts]
    return _Split(*((rows, y[index]) for rows, index in zip(inputs, parts, strict=True)))


def _figure(curves: dict[str, dict[str, list[ActiveLearningCurve]]], means: dict[str, tuple[float, float]]) -> Figure:
    columns = min(3, len(curves)) + 1
    lines = -(-len(curves) // (columns - 1))
    figure = Figure(figsize=(3.4 * columns, 2.9 * lines), layout="constrained")
    grid = figure.add_gridspec(lines, columns)
    shown = [m for m in (RANDOM, OURS, "LCMD, last layer", "determinant, gradients") if m in means or m == RANDOM]
    for i, (problem, of) in enumerate(curves.items()):
        axis = figure.add_subplot(grid[i // (columns - 1), i % (columns - 1)])
        for method in shown:
            runs = np.log([[e.rmse for e in curve.errors] for curve in of[method]])
            middle, half = runs.mean(0), runs.std(0) / len(runs) ** 0.5
            color = "0.5" if method == RANDOM else None
            (line,) = axis.plot(of[method][0].sizes, np.exp(middle), label=method, color=color)
            axis.fill_between(
                of[method][0].sizes, np.exp(middle - half), np.exp(middle + half), color=line.get_color(), alpha=0.15
            )
        axis.set_yscale("log")
        axis.set_title(problem, fontsize=9)
        axis.set_xlabel("labels", fontsize=8)
        axis.tick_params(labelsize=7, which="both")
        if i == 0:
            axis.set_ylabel("test RMSE", fontsize=8)
            axis.legend(fontsize=6)
    axis = figure.add_subplot(grid[:, -1])
    names = sorted(means, key=lambda m: means[m][0], reverse=True)
    axis.barh(names, [means[m][0] for m in names], xerr=[means[m][1] for m in names], color="C0", alpha=0.7)
    axis.axvline(0, color="0.3", linewidth=0.8)
    axis.tick_params(labelsize=7)
    axis.set_title("mean log RMSE less random's", fontsize=9)
    return figure


_TABLES = ("kin40k", "elevators", "keggundirected", "diamonds")

CLAIM = Claim(
    number=7,
    slug="deep-batch-active-learning",
    statement=(
        "Batches chosen by largest cluster and maximum distance on sketched gradients, labelled samples given, have "
        "the smallest mean log RMSE of all eight selections of the benchmark, and gradients serve each of them better "
        "than the last layer."
    ),
    baselines=(
        "random batches",
        "greedy determinants, largest posterior variances, BAIT, Frank–Wolfe, largest distances and k-means++, on "
        "gradients and on the last layer",
        "the same selection on the last layer",
    ),
    measure=measure,
    presets={
        "quick": {
            "problems": tuple(_GENERATED),
            "methods": (RANDOM, OURS, "LCMD, last layer"),
            "seeds": 4,
            "pool": 2000,
            "test": 1000,
            "initial": 64,
            "batch": 48,
            "rounds": 3,
            "width": 64,
            "epochs": 100,
            "sketch": 256,
        },
        "full": {
            "problems": (*_GENERATED, *_TABLES),
            "methods": _METHODS,
            "seeds": 3,
            "pool": 3000,
            "test": 2000,
            "initial": 128,
            "batch": 64,
            "rounds": 4,
            "width": 128,
            "epochs": 100,
            "sketch": 512,
        },
        "gpu": {
            "problems": (*_GENERATED, *_TABLES),
            "methods": _METHODS,
            "seeds": 10,
            "pool": 15_000,
            "test": 1500,
            "initial": 256,
            "batch": 256,
            "rounds": 16,
            "width": 512,
            "epochs": 256,
            "sketch": 512,
            "device": "cuda",
        },
    },
    data={preset: (*(f"uci_regression/{name}" for name in _TABLES[:-1]), "diamonds") for preset in ("full", "gpu")},
)
