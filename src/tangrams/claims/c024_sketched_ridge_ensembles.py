"""Generalised cross-validation knows the risk of sketched ridge ensembles, whatever sketch, size and penalty [024].

On Gaussian data with a known risk: the relative gap between estimate and risk over a path of penalties for each
family of sketches, and over sketch sizes, beside two-fold cross-validation and the training error; the ensemble trick,
two members for the risk of ridge regression without a sketch at the equivalent penalty; the coverage of intervals on
a target that is not linear. Then the estimated and the measured classification error on real images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor

from tangrams.claims.base import Claim, Evidence
from tangrams.data import load
from tangrams.features import RandomFeatures
from tangrams.learners import SketchedRidgeEnsemble, equivalent_penalty, sign_error, squared_error
from tangrams.operators import CosineSketch, CountSketch, GaussianSketch, OrthogonalSketch, Sketch, SparseSketch

_FAMILIES: dict[str, Callable[..., Sketch]] = {
    "Gaussian": GaussianSketch,
    "orthogonal": OrthogonalSketch,
    "cosine": CosineSketch,
    "stacked count": partial(SparseSketch, nonzeros=64),
    "count": CountSketch,
}
_FREE = ("Gaussian", "orthogonal", "cosine", "stacked count")
_PENALTIES = np.logspace(-4, 2, 9)


def measure(
    samples: int,
    trials: int,
    sizes: Sequence[float],
    coverage_scale: int,
    coverage_trials: int,
    trick_trials: int,
    data: str | None,
) -> Evidence:
    """Gaps over penalties and sizes, two rivals, the trick, coverage, and one classification."""
    gaps, risks = _penalties(samples, trials)
    by_size = _sizes(samples, trials, sizes)
    rivals = _rivals(samples, trials)
    trick = _trick(samples, trick_trials)
    coverage = {level: _coverage(coverage_scale, coverage_trials, level) for level in (0.95, 0.99)}
    real = _real(data)
    worst = {name: float(np.abs(np.mean(gap, 0)).max()) for name, gap in gaps.items()}
    single = {name: float(np.abs(gap).mean()) for name, gap in gaps.items()}
    size_gap = max(abs(gap) for gap in by_size.values())
    scores = [np.abs(np.mean(gaps[f], 0)) / np.std(gaps[f], 0) * math.sqrt(trials) for f in _FREE]
    tracks = max(worst[f] for f in _FREE) < 0.1 and float(np.max(scores)) < 3.5 and size_gap < 0.1
    covers = abs(np.mean(coverage[0.95]) - 0.95) < 0.015
    tricks = abs(np.mean(trick["two members"])) < 0.5 * abs(np.mean(trick["one member"]))
    good = [tracks, covers, tricks]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    means = {name: np.mean(values) for name, values in {**rivals, **trick}.items()}
    mean_single = np.mean([single[f] for f in _FREE])
    sentence = (
        f"Averaged over {trials} trials (n = {samples}, p = {_wide(samples)}, q = {_narrow(samples)}, K = 5) the "
        f"largest relative gap between estimate and risk over penalties 10⁻⁴ … 10² is "
        f"{min(worst[f] for f in _FREE):.1%} to {max(worst[f] for f in _FREE):.1%} for free sketches (at most "
        f"{np.max(scores):.1f} standard errors; one trial: {mean_single:.1%} on average) and {worst['count']:.1%} "
        f"for a single count sketch, {size_gap:.1%} over sketch sizes; at λ = 0.1 it is {means['GCV']:+.1%}, of "
        f"two-fold cross-validation {means['two-fold']:+.1%}, of the training error {means['training']:+.1%}. Two "
        f"members find the risk of unsketched ridge to {means['two members']:+.1%}, one is "
        f"{means['one member']:+.1%} off. Intervals of 95 % and "
        f"99 % cover {np.mean(coverage[0.95]):.1%} and {np.mean(coverage[0.99]):.1%}. On {data or 'digits'} the "
        f"squared error is estimated as {real['squared, estimated']:.3f} and measured as "
        f"{real['squared, measured']:.3f}, the classification error {real['sign, estimated']:.3f} and "
        f"{real['sign, measured']:.3f}."
    )
    numbers = {
        "penalties": _PENALTIES.tolist(),
        "largest_z_score": float(np.max(scores)),
        "relative_gap": gaps,
        "risk": risks,
        "largest_mean_gap": worst,
        "mean_gap_of_one_trial": single,
        "gap_by_size": {str(size): gap for size, gap in by_size.items()},
        "rivals": rivals,
        "trick": trick,
        "coverage": {str(level): values for level, values in coverage.items()},
        "real": real,
    }
    return Evidence(verdict, sentence, numbers, _figure(gaps, risks, by_size, coverage))


def _wide(n: int) -> int:
    return round(1.2 * n)


def _narrow(n: int) -> int:
    return round(0.882 * n)


def _problem(n: int, p: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Isotropic features, coefficients of norm one, noise of variance one."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    beta = torch.randn(p, generator=generator, dtype=torch.float64)
    beta /= beta.norm()
    return X, X @ beta + torch.randn(n, generator=generator, dtype=torch.float64), beta


def _risk(model: SketchedRidgeEnsemble, beta: Tensor) -> float:
    """Of a new sample, exactly."""
    return 1 + float((torch.from_numpy(model.coef_) - beta).square().sum()) + model.intercept_**2


def _penalties(n: int, trials: int) -> tuple[dict[str, Any], dict[str, Any]]:
    gaps: dict[str, Any] = {name: [] for name in _FAMILIES}
    risks: dict[str, Any] = {name: [] for name in _FAMILIES}
    for seed in range(trials):
        X, y, beta = _problem(n, _wide(n), seed)
        for name, make in _FAMILIES.items():
            model = SketchedRidgeEnsemble(make(_narrow(n)), penalty=_PENALTIES, random_state=seed).fit(X, y)
            risk = np.array([_risk(model.refit(penalty), beta) for penalty in _PENALTIES])
            gaps[name].append((model.risk_path_[0] / risk - 1).tolist())
            risks[name].append(risk.tolist())
    return gaps, risks


def _sizes(n: int, trials: int, shares: Sequence[float]) -> dict[int, float]:
    """The mean gap over sketch sizes at λ = 0.2."""
    found: dict[int, list[float]] = {}
    for seed in range(trials):
        X, y, beta = _problem(n, _wide(n), seed)
        for share in shares:
            size = round(share * _wide(n))
            model = SketchedRidgeEnsemble(CosineSketch(size), penalty=0.2, random_state=seed).fit(X, y)
            found.setdefault(size, []).append(model.gcv_score() / _risk(model, beta) - 1)
    return {size: float(np.mean(values)) for size, values in found.items()}


def _rivals(n: int, trials: int) -> dict[str, list[float]]:
    """Relative gaps at λ = 0.1 of three estimates."""
    found: dict[str, list[float]] = {"GCV": [], "two-fold": [], "training": []}
    for seed in range(trials):
        X, y, beta = _problem(n, _wide(n), seed)
        sketch = CosineSketch(_narrow(n))
        model = SketchedRidgeEnsemble(sketch, penalty=0.1, random_state=seed).fit(X, y)
        risk = _risk(model, beta)
        halves = torch.arange(n) % 2 == 0
        errors = []
        for part in (halves, ~halves):
            other = SketchedRidgeEnsemble(sketch, penalty=0.1, random_state=seed).fit(X[part], y[part])
            errors.append(np.mean((y[~part].numpy() - other.predict(X[~part])) ** 2))
        training = np.mean((y.numpy() - model.predict(X)) ** 2)
        estimates = {"GCV": model.gcv_score(), "two-fold": np.mean(errors), "training": training}
        for name, value in estimates.items():
            found[name].append(float(value) / risk - 1)
    return found


def _trick(n: int, trials: int) -> dict[str, list[float]]:
    """Against the risk of ridge regression on all features at the equivalent penalty."""
    found: dict[str, list[float]] = {"two members": [], "one member": []}
    for seed in range(trials):
        X, y, beta = _problem(n, _wide(n), seed)
        make = partial(SketchedRidgeEnsemble, CosineSketch(_narrow(n)), penalty=0.1, random_state=seed)
        two, one = make(n_estimators=2).fit(X, y), make(n_estimators=1).fit(X, y)
        spectrum = torch.linalg.svdvals(X - X.mean(0)).square() / n
        mu = equivalent_penalty(spectrum, two.sketch_, 0.1)
        full = SketchedRidgeEnsemble(CosineSketch(_wide(n)), penalty=mu, n_estimators=1).fit(X, y)
        found["two members"].append(two.unsketched_gcv() / _risk(full, beta) - 1)
        found["one member"].append(one.gcv_score() / _risk(full, beta) - 1)
    return found


def _coverage(s: int, trials: int, level: float) -> list[float]:
    """The share of new targets inside their intervals; the target is a soft threshold of a linear function."""
    found = []
    for seed in range(trials):
        generator = torch.Generator().manual_seed(seed)
        n, p, q, new = 75 * s, 50 * s, 10 * s, 2000
        X = torch.randn(n + new, p, generator=generator)
        beta = torch.randn(p, generator=generator) / math.sqrt(p)
        y = torch.nn.functional.softshrink(X @ beta, 1.0).numpy()
        model = SketchedRidgeEnsemble(CosineSketch(q), penalty=1e-6, random_state=seed).fit(X[:n], y[:n])
        low, high = model.prediction_interval(X[n:], level)
        found.append(float(np.mean((low <= y[n:]) & (y[n:] <= high))))
    return found


def _real(data: str | None) -> dict[str, float]:
    """Odd against even digits on random features: sketch size and penalty chosen by the estimated risk."""
    if data is None:
        found: Any = load_digits()
        images, labels = torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)
    else:
        split = load(data, num_train=4000, num_test=1)
        images, labels = split.train.inputs.flatten(1), split.train.targets
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    X = RandomFeatures(images.shape[1], 800, seed=0)(images[order])
    y = (1.0 - 2.0 * (labels[order] % 2)).numpy()
    n = len(y) // 2
    model = SketchedRidgeEnsemble([CosineSketch(size) for size in (50, 150, 300)]).fit(X[:n], y[:n])
    prediction = model.predict(X[n:])
    return {
        "squared, estimated": model.gcv_score(),
        "squared, measured": float(np.mean(squared_error(y[n:], prediction))),
        "sign, estimated": model.gcv_score(sign_error),
        "sign, measured": float(np.mean(sign_error(y[n:], prediction))),
        "sketch_size": float(model.sketch_.num_features),
        "penalty": model.penalty_,
    }


def _figure(gaps: Any, risks: Any, by_size: dict[int, float], coverage: dict[float, list[float]]) -> Figure:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for i, name in enumerate(gaps):
        mean, risk = np.mean(gaps[name], 0), np.mean(risks[name], 0)
        left.loglog(_PENALTIES, risk, color=f"C{i}", linewidth=1)
        left.loglog(
            _PENALTIES, np.mean(np.array(risks[name]) * (1 + np.array(gaps[name])), 0), "o", color=f"C{i}", markersize=4
        )
        middle.semilogx(
            _PENALTIES, 100 * mean, "-o" if name in _FREE else "--s", color=f"C{i}", label=name, markersize=4
        )
    left.set_title("risk (lines) and its estimate (points)", fontsize=10)
    middle.set_title("mean gap, %", fontsize=10)
    middle.axhline(0, color="0.7", linewidth=1)
    middle.legend(fontsize=7)
    for axis in (left, middle):
        axis.set_xlabel("λ")
    right.plot(list(by_size), [100 * gap for gap in by_size.values()], "-o", label="gap over sketch sizes")
    for level, values in coverage.items():
        right.axhline(100 * (np.mean(values) - level), linestyle=":", label=f"coverage − {level:.0%}")
    right.set_xlabel("sketch size")
    right.set_title("per cent", fontsize=10)
    right.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=24,
    slug="sketched-ridge-ensembles",
    statement=(
        "Generalised cross-validation is consistent for sketched ridge ensembles, uniformly over penalty and sketch "
        "size, for any asymptotically free sketch and many risks; its residuals give intervals of nominal coverage, "
        "and two small fits give the risk of ridge regression without a sketch."
    ),
    baselines=("two-fold cross-validation", "the training error", "a single sketched fit", "a single count sketch"),
    measure=measure,
    presets={
        "quick": {
            "samples": 150,
            "trials": 16,
            "sizes": (0.2, 0.5, 0.8),
            "coverage_scale": 8,
            "coverage_trials": 4,
            "trick_trials": 40,
            "data": None,
        },
        "full": {
            "samples": 500,
            "trials": 12,
            "sizes": (0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
            "coverage_scale": 20,
            "coverage_trials": 4,
            "trick_trials": 50,
            "data": "mnist",
        },
    },
)
