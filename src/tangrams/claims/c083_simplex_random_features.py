"""Simplex directions have the smallest error of positive random features; weight-dependent ones a smaller one [083].

Three measurements of positive features of the Gaussian kernel over one group of d directions. Pointwise: the mean
squared error over thousands of draws against the exact variances, at several lengths of x + y. Kernel matrices: the
relative Frobenius error on standardised scikit-learn data, the bandwidth at the median distance. Classification: the
class with the largest kernel-weighted sum of training samples, the bandwidth chosen on validation data for *orthogonal*
directions, the rival. Beside them stand trigonometric features with as many columns, which softmax attention cannot
take but kernel methods can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tangrams.claims.base import Claim, Evidence
from tangrams.features.random import (
    Coupling,
    IIDCoupling,
    OrthogonalCoupling,
    PositiveRandomFeatures,
    SimplexCoupling,
    SimplexPlusCoupling,
    TrigonometricRandomFeatures,
)

COUPLINGS: dict[str, Coupling] = {
    "iid": IIDCoupling(),
    "orthogonal": OrthogonalCoupling(),
    "simplex": SimplexCoupling(),
    "simplex+": SimplexPlusCoupling(),
}
CURVE = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""‖x + y‖² of the exact curves."""
LENGTHSCALES = tuple(2.0 ** (e / 2) for e in range(-3, 4))
"""Candidates, in units of the median distance."""


def measure(
    dims: Sequence[int], squares: Sequence[float], draws: int, tables: Sequence[str], seeds: int, samples: int
) -> Evidence:
    """Errors at points, of kernel matrices, and of classifiers."""
    points = {d: {square: _pointwise(d, square, draws) for square in squares} for d in dims}
    matrices = {table: _matrix_errors(table, samples, seeds) for table in tables}
    accuracies = {table: _accuracies(table, samples, seeds) for table in tables}

    curves = {d: {name: _exact(d, name) for name in COUPLINGS} for d in dims}
    exact = all(_falls([curve[name][i] for name in COUPLINGS]) for curve in curves.values() for i in range(len(CURVE)))
    at_points = [at for row in points.values() for at in row.values()]
    deviations = [abs(at[name]["z"]) for at in at_points for name in COUPLINGS]
    agree = max(deviations) < 4
    apart = sum(_separate(at["orthogonal"], at["simplex"]) for at in at_points)
    gains = [1 - b / a for curve in curves.values() for a, b in zip(curve["orthogonal"], curve["simplex"], strict=True)]
    lower = {table: _paired(rows["orthogonal"], rows["simplex"]) for table, rows in matrices.items()}
    higher = {table: _paired(rows["simplex"], rows["orthogonal"]) for table, rows in accuracies.items()}
    means = {name: float(np.mean([np.mean(rows[name]) for rows in accuracies.values()])) for name in _names()}
    best = max(means["simplex"], means["simplex+"]) >= max(means["iid"], means["orthogonal"])
    matrices_fall = all(low > 0 for _, low in lower.values())
    good = [exact and agree and apart == len(at_points), matrices_fall, best]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    frobenius = {name: float(np.mean([np.mean(rows[name]) for rows in matrices.values()])) for name in _names()}
    sentence = (
        f"Exact errors are in the order simplex+ ≤ simplex < orthogonal < iid for every length of x + y up to "
        f"{math.sqrt(CURVE[-1]):g} in {', '.join(map(str, dims))} dimensions; the simplex saves {min(gains):.0%} to "
        f"{max(gains):.0%} of the error of orthogonal directions, more where x + y is short. At {len(at_points)} "
        f"points {draws} draws agree with them (largest z {max(deviations):.1f}) and put the simplex below orthogonal "
        f"beyond the 95 % interval at {apart}. Kernel matrices, {seeds} seeds: relative error {_listed(frobenius)}; "
        f"simplex below orthogonal beyond the interval on {sum(low > 0 for _, low in lower.values())} of {len(lower)}. "
        f"Mean accuracy of kernel classification: {_listed(means)}."
    )
    numbers: dict[str, Any] = {
        "squares": list(CURVE),
        "exact": {str(d): curve for d, curve in curves.items()},
        "pointwise": {str(d): {str(s): at for s, at in row.items()} for d, row in points.items()},
        "kernel_matrix_error": matrices,
        "orthogonal_minus_simplex_matrix_error": {t: {"mean": m, "lower_95": low} for t, (m, low) in lower.items()},
        "accuracy": accuracies,
        "simplex_minus_orthogonal_accuracy": {t: {"mean": m, "lower_95": low} for t, (m, low) in higher.items()},
        "mean_accuracy": means,
        "mean_matrix_error": frobenius,
    }
    return Evidence(verdict, sentence, numbers, _figure(points, curves, matrices, accuracies))


def _pointwise(d: int, square: float, draws: int) -> dict[str, dict[str, float]]:
    """Measured and exact mean squared error of d features at x = y, where ‖x + y‖² is given and k(x, y) = 1."""
    x = torch.full((1, d), math.sqrt(square / d) / 2, dtype=torch.float64)
    found = {}
    for name, coupling in COUPLINGS.items():
        exact = float(PositiveRandomFeatures(d, d, coupling=coupling).variance(x, x))
        phi = PositiveRandomFeatures(d, d * draws, coupling=coupling, seed=d)
        estimates = draws * phi(x).square().reshape(draws, d).sum(1)
        errors = (estimates - 1).square()
        deviation = float(errors.std()) / math.sqrt(draws)
        mean = float(errors.mean())
        found[name] = {"measured": mean, "deviation": deviation, "exact": exact, "z": (mean - exact) / deviation}
    return found


def _exact(d: int, name: str) -> list[float]:
    x = torch.tensor(CURVE, dtype=torch.float64)[:, None].sqrt() * torch.full((1, d), 0.5 / math.sqrt(d))
    return PositiveRandomFeatures(d, d, coupling=COUPLINGS[name]).variance(x.double(), x.double()).tolist()


def _separate(larger: dict[str, float], smaller: dict[str, float]) -> bool:
    """Whether two measured errors differ by more than the 95 % interval of their difference."""
    deviation = math.hypot(larger["deviation"], smaller["deviation"])
    return larger["measured"] - smaller["measured"] > 1.96 * deviation


def _names() -> list[str]:
    return [*COUPLINGS, "trigonometric"]


def _features(name: str, d: int, lengthscale: float, seed: int) -> Any:
    if name == "trigonometric":
        return TrigonometricRandomFeatures(d, d + d % 2, lengthscale=lengthscale, seed=seed)
    return PositiveRandomFeatures(d, d, coupling=COUPLINGS[name], lengthscale=lengthscale, seed=seed)


def _matrix_errors(table: str, samples: int, seeds: int) -> dict[str, list[float]]:
    x, _ = _standardised(table, samples)
    scale = _median_distance(x)
    exact = PositiveRandomFeatures(x.shape[1], 1, lengthscale=scale).kernel(x, x)
    return {
        name: [
            float((_features(name, x.shape[1], scale, seed).gram(x) - exact).norm() / exact.norm())
            for seed in range(seeds)
        ]
        for name in _names()
    }


def _accuracies(table: str, samples: int, seeds: int) -> dict[str, list[float]]:
    """Test accuracies over seeds, half the samples for training, a quarter for validation."""
    x, y = _standardised(table, samples)
    n = len(x)
    train, valid, test = (range(n // 2), range(n // 2, 3 * n // 4), range(3 * n // 4, n))
    onehot = torch.nn.functional.one_hot(y[: n // 2]).to(x)

    def accuracy(name: str, scale: float, seed: int, part: range) -> float:
        phi = _features(name, x.shape[1], scale, seed)
        votes = phi(x[list(part)]) @ (phi(x[list(train)]).mT @ onehot)
        return float((votes.argmax(1) == y[list(part)]).double().mean())

    unit = _median_distance(x)
    scales = [factor * unit for factor in LENGTHSCALES]
    found = {}
    for name in _names():
        # All positive features share the bandwidth that is best for their rival; the others have their own.
        judge = "trigonometric" if name == "trigonometric" else "orthogonal"
        scores = [np.mean([accuracy(judge, scale, 1000 + seed, valid) for seed in range(10)]) for scale in scales]
        scale = scales[int(np.argmax(scores))]
        found[name] = [accuracy(name, scale, seed, test) for seed in range(seeds)]
    return found


def _standardised(table: str, samples: int) -> tuple[Tensor, Tensor]:
    """A table of scikit-learn's, its rows shuffled and cut, columns standardised."""
    from sklearn import datasets

    data = getattr(datasets, f"load_{table}")()
    x, y = torch.from_numpy(np.asarray(data.data, dtype=np.float64)), torch.from_numpy(np.asarray(data.target)).long()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:samples]
    x, y = x[order], y[order]
    deviation = x.std(0)
    return (x - x.mean(0))[:, deviation > 0] / deviation[deviation > 0], y


def _median_distance(x: Tensor) -> float:
    return float(torch.pdist(x).median())


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean difference over seeds, and the lower end of its 95 % interval."""
    difference = np.subtract(first, second)
    mean = float(difference.mean())
    return mean, mean - 1.96 * float(difference.std(ddof=1)) / math.sqrt(len(difference))


def _falls(errors: Sequence[float]) -> bool:
    """Strictly but for the last, whose expectation is a mean over draws."""
    return errors[0] > errors[1] > errors[2] and errors[3] <= errors[2] * (1 + 1e-3)


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def _figure(points: Any, curves: Any, matrices: Any, accuracies: Any) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for style, (d, row) in zip(("-", "--", ":"), points.items(), strict=False):
        for i, name in enumerate(COUPLINGS):
            left.plot(CURVE, curves[d][name], style, color=f"C{i}", label=name if style == "-" else None)
            mean = [at[name]["measured"] for at in row.values()]
            deviation = [1.96 * at[name]["deviation"] for at in row.values()]
            left.errorbar(list(row), mean, deviation, fmt=".", color=f"C{i}")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("‖x + y‖²")
    left.set_title(f"mean squared error, d = {', '.join(map(str, points))}", fontsize=10)
    left.legend(fontsize=7)
    for axis, values, title in (
        (middle, matrices, "relative error of the kernel matrix"),
        (right, accuracies, "accuracy of kernel classification"),
    ):
        for i, name in enumerate(_names()):
            mean = [np.mean(values[table][name]) for table in values]
            error = [1.96 * np.std(values[table][name]) / math.sqrt(len(values[table][name])) for table in values]
            axis.errorbar(np.arange(len(values)) + 0.12 * (i - 2), mean, error, fmt="o", markersize=4, label=name)
        axis.set_xticks(range(len(values)), list(values), fontsize=8)
        axis.set_title(title, fontsize=10)
    middle.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=83,
    slug="simplex-random-features",
    statement=(
        "Positive random features of the Gaussian kernel have the smallest mean squared error of all couplings that do "
        "not look at the lengths when their directions form a regular simplex, a smaller one still when directions "
        "oppose each other given the lengths, and kernel methods gain from both."
    ),
    baselines=("independent directions", "orthogonal directions", "trigonometric features over orthogonal directions"),
    measure=measure,
    presets={
        "quick": {
            "dims": (4, 16),
            "squares": (0.1, 0.25, 0.5),
            "draws": 8000,
            "tables": ("wine", "breast_cancer", "digits"),
            "seeds": 50,
            "samples": 300,
        },
        "full": {
            "dims": (4, 16, 64),
            "squares": (0.1, 0.25, 0.5),
            "draws": 20_000,
            "tables": ("iris", "wine", "breast_cancer", "digits"),
            "seeds": 200,
            "samples": 500,
        },
    },
)
