"""The eigenframework predicts ridge regression on random features; with a tuned ridge more is better [006].

Four measurements. Simulated Gaussian random features against the closed form, over numbers of features and ridges, and
whether the tuned ridge makes the risk fall in both. Random ReLU features of real images: the risks that a sample of N
predicts for other numbers of samples and features, against refitting and testing, with the plug-in estimate (the
sample's own eigensystem taken for the truth) beside it. A tangent kernel on real images: how far the best ridge fits
its training data, with and without wrong labels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from tangrams.claims._networks import samples_of
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled
from tangrams.features import RandomFeatures
from tangrams.kernels.base import Kernel
from tangrams.kernels.ntk import AnalyticNTK, AvgPool, Conv, Dense, FullyConnectedNTK, GlobalAvgPool, ReLU, Serial
from tangrams.learners import RandomFeatureRidge
from tangrams.lens import EigenTask, GramTask, optimal_ridge, ridge_risk
from tangrams.operators import GramSpectrum

_DELTAS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)
"""Ridges in units of the kernel's mean diagonal."""


def measure(
    simulated: Mapping[str, Any],
    real: Sequence[Mapping[str, Any]],
    tangent: Sequence[Mapping[str, Any]],
    device: str = "cpu",
) -> Evidence:
    """Measure all four; the tangent kernels on the device."""
    theory = _simulate(**simulated)
    regression = {str(settings["name"] or "digits"): _regression(**settings) for settings in real}
    fitting = {str(settings["name"] or "digits"): _fitting(**settings, device=device) for settings in tangent}
    return _conclude(theory, regression, fitting)


def _conclude(
    theory: dict[str, Any], regression: dict[str, list[dict[str, float]]], fitting: dict[str, dict[str, dict[str, Any]]]
) -> Evidence:
    """What the four say."""
    worst = max(abs(row["test"] / row["predicted"] - 1) for row in theory["grid"])
    falls = theory["tuned_rises"] == 0
    errors = np.abs([row["predicted"] / row["measured"] - 1 for rows in regression.values() for row in rows])
    plug = np.abs([row["plugged"] / row["measured"] - 1 for rows in regression.values() for row in rows])
    beyond = [
        row["predicted"] / row["measured"] - 1 for rows in regression.values() for row in rows if row["n"] > row["N"]
    ]
    clean = [rows["0.0"]["ratio"] for rows in fitting.values()]
    good = [worst < 0.06, falls, float(np.median(errors)) < 0.1, max(clean) < 0.2]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    noisy = [row["ratio"] for rows in fitting.values() for share, row in rows.items() if share != "0.0"]
    way = "falls" if falls else "does not always fall"
    sentence = (
        f"Simulated random features agree with the closed form within {worst:.1%} in {len(theory['grid'])} settings, "
        f"and the tuned risk {way} in samples and features. From {_list(regression)} a sample predicts the risk of "
        f"other sizes within {np.median(errors):.0%} at the median and {errors.max():.0%} at worst (beyond its own "
        f"size {min(beyond):+.0%} to {max(beyond):+.0%}; the plug-in estimate: {np.median(plug):.0%} and "
        f"{plug.max():.0%}). Training over test error of a tangent kernel at its best ridge, from a quarter, half and "
        f"all of the samples with clean labels: {', '.join(_ratios(name, rows) for name, rows in fitting.items())}; "
        f"{min(noisy):.2f} to {max(noisy):.2f} with wrong ones."
    )
    numbers = {"simulated": theory, "real": regression, "fitting": fitting}
    return Evidence(verdict, sentence, numbers, _figure(theory, regression, fitting))


def _simulate(n: int, size: int, widths: Sequence[int], deltas: Sequence[float], trials: int) -> dict[str, Any]:
    """Ridge regression on k Gaussian features of a Gaussian design, α = β = 1.5, σ² = 0.5; exact test errors."""
    task = EigenTask.power_law(1.5, 1.5, size, noise_variance=0.5)
    generator = torch.Generator().manual_seed(0)
    scale, v, many = task.eigenvalues.sqrt(), task.coefficients, max(widths)
    found: dict[tuple[int, float], list[tuple[float, float]]] = {(k, d): [] for k in widths for d in deltas}
    for _ in range(trials):
        x = torch.randn(n, size, generator=generator, dtype=torch.float64)
        W = torch.randn(size, many, generator=generator, dtype=torch.float64)
        y = x @ v + 0.5**0.5 * torch.randn(n, generator=generator, dtype=torch.float64)
        features = (x * scale) @ W
        for k in widths:
            Z = features[:, :k] / k**0.5
            values, U = torch.linalg.eigh(Z @ Z.mT)
            for delta in deltas:
                alpha = U @ ((U.mT @ y) / (values.clamp_min(0) + delta))
                weights = scale * (W[:, :k] @ (Z.mT @ alpha)) / k**0.5
                test = float((weights - v).square().sum()) + 0.5
                found[k, delta].append((test, float((delta * alpha).square().mean())))
    grid = []
    for (k, delta), pairs in found.items():
        tests, trains = np.array(pairs).T
        risk = ridge_risk(task, n, delta, k=k)
        error = float(tests.std(ddof=1) / math.sqrt(trials))
        row = {"k": k, "delta": delta, "test": tests.mean(), "error": error, "train": trains.mean()}
        grid.append({**row, "predicted": risk.test, "predicted_train": risk.train})
    sizes, many_widths = (n // 8, n // 2, n, 2 * n, 8 * n), (*widths, math.inf)
    tuned = np.array([[optimal_ridge(task, m, k=k)[1].test for k in many_widths] for m in sizes])
    simulated = [min(row["test"] for row in grid if row["k"] == k) for k in sorted(widths)]
    errors = [min((row["test"], row["error"]) for row in grid if row["k"] == k)[1] for k in sorted(widths)]
    rises = int((np.diff(tuned, axis=0) > 1e-9).sum() + (np.diff(tuned, axis=1) > 1e-9).sum())
    rises += sum(b > a + 3 * s for a, b, s in zip(simulated, simulated[1:], errors[1:], strict=False))
    return {"n": n, "grid": grid, "tuned_rises": rises, "tuned": tuned.tolist(), "tuned_simulated": simulated}


def _images(name: str | None, n: int, seed: int) -> tuple[Labelled, Labelled]:
    """Images scaled so that a pixel's mean square is one."""
    data, test = samples_of(name, n, seed, dtype=torch.float64)
    centre = data.inputs.mean()
    scale = (data.inputs - centre).square().mean().sqrt()
    return tuple(Labelled((part.inputs - centre) / scale, part.targets) for part in (data, test))  # type: ignore[return-value]


def _regression(
    name: str | None, sample: int, sizes: Sequence[int], widths: Sequence[int], seeds: int
) -> list[dict[str, float]]:
    """What a sample of N says of regression on k random ReLU features with n samples, against doing it."""
    rows: dict[tuple[int, int, float], list[tuple[float, float, float]]] = {}
    for seed in range(seeds):
        data, test = _images(name, max(*sizes, sample), seed)
        x, y = data.inputs.flatten(1), one_hot(data.targets, 10).double()
        wide = RandomFeatures(x.shape[1], 1 << 14, seed=1000 + seed)  # as good as infinitely many
        K = wide.gram(x[:sample])
        spectrum = GramSpectrum.of(K)
        task = GramTask.of(spectrum, y[:sample])
        plug = EigenTask.from_gram(K, y[:sample] - y[:sample].mean(0))
        for k in widths:
            phi = RandomFeatures(x.shape[1], k, seed=seed)
            for n in sizes:
                for delta in _DELTAS:
                    model = RandomFeatureRidge(phi, delta=delta).fit(x[:n], y[:n])
                    wrong = model.predict(test.inputs.flatten(1)) - one_hot(test.targets, 10).numpy()
                    ridge = delta * spectrum.unit
                    predicted, plugged = (ridge_risk(t, n, ridge, k=k).test for t in (task, plug))
                    measured = float(np.square(wrong).sum(1).mean())
                    rows.setdefault((n, k, delta), []).append((measured, predicted, plugged))
    means = {key: np.mean(values, axis=0) for key, values in rows.items()}
    names = ("measured", "predicted", "plugged")
    return [
        {"N": sample, "n": n, "k": k, "delta": d, **dict(zip(names, mean.tolist(), strict=True))}
        for (n, k, d), mean in means.items()
    ]


def _fitting(
    name: str | None, samples: int, held_out: int, pool: int, convolutional: bool, noise: Sequence[float], device: str
) -> dict[str, dict[str, Any]]:
    """Training over test error of an analytic tangent kernel at the best ridge, for shares of wrong labels.

    With clean labels also from a quarter and half of the samples: which way it goes with more.
    """
    data, test = _images(name, samples, 0)
    shrink = lambda x: avg_pool2d(x, pool) if pool > 1 else x  # noqa: E731
    x, new = shrink(data.inputs), shrink(test.inputs[:held_out])
    kernel = _myrtle() if convolutional else FullyConnectedNTK(2)
    if not convolutional:
        x, new = x.flatten(1), new.flatten(1)
    x, new = x.to(device), new.to(device)
    K, cross = kernel.gram(x).cpu(), kernel.gram(new, x).cpu()
    found = {}
    for share in noise:
        generator = torch.Generator().manual_seed(0)
        y, wanted = (
            _noisy(part[:m], share, generator) for part, m in ((data.targets, samples), (test.targets, len(new)))
        )
        found[str(float(share))] = row = _best(GramSpectrum.of(K), cross, y, wanted)
        if share == 0:
            row["fewer_samples"] = {
                str(n): _best(GramSpectrum.of(K[:n, :n]), cross[:, :n], y[:n], wanted)
                for n in (samples // 4, samples // 2)
            }
    return found


def _best(spectrum: GramSpectrum, cross: Tensor, y: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Errors at the ridge that is best on the test samples, and what the training samples foretell."""
    deltas = torch.logspace(-7, 2, 37, dtype=torch.float64).tolist()
    errors = [_errors(spectrum, cross, y, wanted, delta) for delta in deltas]
    best = int(np.argmin([test for _, test in errors]))
    (train, risk), (delta, foretold) = errors[best], optimal_ridge(GramTask.of(spectrum, y), len(y))
    return {
        "train": train,
        "test": risk,
        "ratio": train / risk,
        "delta": deltas[best],
        "predicted_ratio": foretold.fitting_ratio,
        "predicted_test": foretold.test,
        "predicted_delta": delta / spectrum.unit,
    }


def _myrtle() -> Kernel:
    """Myrtle-5: four 3 × 3 convolutions with ReLU, pooled behind the second and third and over all at the end."""
    conv, relu, pool = Conv(3, 2**0.5), ReLU(), AvgPool(2)
    layers = (conv, relu, conv, relu, pool, conv, relu, pool, conv, relu, GlobalAvgPool(), Dense())
    return AnalyticNTK(Serial(*layers))


def _noisy(labels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Indicators of labels of which a share is drawn again, uniformly."""
    drawn = torch.randint(10, labels.shape, generator=generator)
    wrong = torch.rand(labels.shape, generator=generator) < share
    return one_hot(torch.where(wrong, drawn, labels), 10).double()


def _errors(spectrum: GramSpectrum, cross: Tensor, y: Tensor, wanted: Tensor, delta: float) -> tuple[float, float]:
    outputs = y.mean(0) + cross @ spectrum.dual(y, delta)
    train = float(spectrum.residuals(y, delta).square().sum(1).mean())
    return train, float((outputs - wanted).square().sum(1).mean())


def _ratios(name: str, rows: Mapping[str, Any]) -> str:
    parts = (*rows["0.0"]["fewer_samples"].values(), rows["0.0"])
    return f"{name} " + " → ".join(f"{part['ratio']:.3f}" for part in parts)


def _list(names: Mapping[str, Any]) -> str:
    return " and ".join(names)


def _figure(theory: dict[str, Any], regression: dict[str, Any], fitting: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    left, middle, third, right = figure.subplots(1, 4)
    for i, delta in enumerate(sorted({row["delta"] for row in theory["grid"]})):
        rows = [row for row in theory["grid"] if row["delta"] == delta]
        k = [row["k"] for row in rows]
        left.loglog(k, [row["predicted"] for row in rows], color=f"C{i}", label=f"δ = {delta:g}")
        left.errorbar(
            k, [r["test"] for r in rows], [2 * r["error"] for r in rows], fmt="o", color=f"C{i}", markersize=4
        )
    left.set_xlabel("features k")
    left.set_title(f"test error, n = {theory['n']}: theory and simulation", fontsize=9)
    left.legend(fontsize=7)
    widths = [*sorted({str(row["k"]) for row in theory["grid"]}, key=int), "∞"]
    middle.semilogy(widths, np.array(theory["tuned"]).T, "-o", markersize=3)
    middle.set_xlabel("features k")
    middle.set_title("tuned ridge: lower curves have more samples", fontsize=9)
    for i, (name, rows) in enumerate(regression.items()):
        measured = np.array([row["measured"] for row in rows])
        beyond = np.array([row["n"] > row["N"] for row in rows])
        predicted, plugged = (np.array([row[key] for row in rows]) for key in ("predicted", "plugged"))
        third.loglog(measured, plugged, "x", color="0.7", label=None if i else "plug-in")
        third.loglog(measured[~beyond], predicted[~beyond], "o", color=f"C{i}", markersize=4, label=f"{name}, n ≤ N")
        third.loglog(measured[beyond], predicted[beyond], "^", color=f"C{i}", markersize=4, label=f"{name}, n > N")
    span = np.array(third.get_xlim())
    third.plot(span, span, color="k", linewidth=0.8)
    third.set_ylim(span[0] / 4, span[1] * 1.5)
    third.set_xlabel("measured test error")
    third.set_title("predicted from a sample of N", fontsize=9)
    third.legend(fontsize=7)
    for i, (name, rows) in enumerate(fitting.items()):
        shares = [float(share) for share in rows]
        right.plot(shares, [row["ratio"] for row in rows.values()], "-o", color=f"C{i}", label=name)
        right.plot(shares, [row["predicted_ratio"] for row in rows.values()], ":", color=f"C{i}")
    right.set_xlabel("share of wrong labels")
    right.set_title("training / test error at the best ridge (⋯ predicted)", fontsize=9)
    right.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=6,
    slug="more-is-better",
    statement=(
        "A closed form predicts the risk of ridge regression on random features from the eigenstructure of the task; "
        "with a tuned ridge the risk falls in samples and features; the best model of a clean task nearly interpolates."
    ),
    baselines=("simulation and refitting on real images", "the sample's own eigensystem taken for the truth"),
    measure=measure,
    presets={
        "quick": {
            "simulated": {
                "n": 96,
                "size": 600,
                "widths": (24, 96, 192, 600),
                "deltas": (0.1, 0.3, 1.0, 3.0),
                "trials": 16,
            },
            "real": ({"name": None, "sample": 300, "sizes": (75, 300, 1200), "widths": (100, 1000), "seeds": 1},),
            "tangent": (
                {
                    "name": None,
                    "samples": 600,
                    "held_out": 450,
                    "pool": 1,
                    "convolutional": False,
                    "noise": (0.0, 0.2, 0.5),
                },
            ),
        },
        "full": {
            "simulated": {
                "n": 128,
                "size": 1500,
                "widths": (32, 64, 128, 256, 1000),
                "deltas": (0.03, 0.1, 0.3, 1.0, 3.0),
                "trials": 24,
            },
            "real": (
                {
                    "name": None,
                    "sample": 300,
                    "sizes": (75, 150, 300, 600, 1200),
                    "widths": (50, 200, 1000),
                    "seeds": 2,
                },
                {"name": "mnist", "sample": 300, "sizes": (75, 300, 1200), "widths": (100, 1000), "seeds": 2},
                {"name": "cifar10", "sample": 300, "sizes": (75, 300, 1200), "widths": (100, 1000), "seeds": 2},
            ),
            "tangent": tuple(
                {
                    "name": name,
                    "samples": samples,
                    "held_out": 120,
                    "pool": 4,
                    "convolutional": True,
                    "noise": (0.0, 0.2, 0.5),
                }
                for name, samples in (("mnist", 240), ("cifar10", 500))
            ),
        },
        "gpu": {
            "device": "cuda",
            "simulated": {
                "n": 128,
                "size": 10_000,
                "widths": (32, 64, 128, 256, 1000, 4000),
                "deltas": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
                "trials": 45,
            },
            "real": (
                {"name": "mnist", "sample": 1000, "sizes": (250, 1000, 4000), "widths": (256, 4000), "seeds": 3},
                {"name": "cifar10", "sample": 1000, "sizes": (250, 1000, 4000), "widths": (256, 4000), "seeds": 3},
            ),
            "tangent": tuple(
                {
                    "name": name,
                    "samples": 2000,
                    "held_out": 1000,
                    "pool": 2,
                    "convolutional": True,
                    "noise": (0.0, 0.1, 0.2, 0.5),
                }
                for name in ("mnist", "cifar10")
            ),
        },
    },
    data={"full": ("mnist", "cifar10"), "gpu": ("mnist", "cifar10")},
)
