"""Random-feature attention learns functions of a set of keys from fewer samples than random features do [039].

Ridge regression, its ridge by generalised cross-validation, on random-feature attention (RFA), its biased variant
(BRFA) and random features of the whole sequence (RFMLP) with as many columns, as the sample grows; errors are relative
to the variance of the targets. Three functions: the mean over keys of ⟨β, x_i⟩² (of the keys alone), of cos(4⟨x₀, x_i⟩)
(of correlations alone), and of ⟨x₀, x_i⟩³⟨β, x_i⟩. Beside them stands what RFA tends to with infinitely many heads, in
closed form, on a small sample. The norm bound √(yᵀK⁻¹y · tr K) / n, the Rademacher complexity of the ball that the
interpolant lies in, says which learner theory would prefer; and the first function is learned from sets of other sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from tangrams.claims.base import Claim, Evidence
from tangrams.data import correlation_cosine, correlation_power, key_power, spherical_sequences
from tangrams.features import BiasedRandomAttentionFeatures, RandomAttentionFeatures, RandomSequenceFeatures
from tangrams.kernels import RandomAttentionKernel
from tangrams.operators import GramSpectrum

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "mean ⟨β, x⟩²": partial(key_power, power=2),
    "mean cos 4⟨x₀, x⟩": partial(correlation_cosine, frequency=4.0),
    "mean ⟨x₀, x⟩³⟨β, x⟩": partial(correlation_power, power=3),
}
LEARNERS = ("RFA", "BRFA", "RFMLP")
TICKS = (0.05, 0.1, 0.2, 0.5, 1.0)
INTERPOLATION = 1e-6
"""A ridge that is none, in units of the mean diagonal."""
HALF = 0.5
"""A function counts as learned when its relative error is below this."""


def measure(
    samples: Sequence[int],
    heads: int,
    seeds: int,
    dim: int,
    num_keys: int,
    sizes: Sequence[int],
    closed_form: int,
    device: str = "cpu",
) -> Evidence:
    """Learning curves of every function and learner, the closed form, and the first function over sizes of the set."""
    maps = partial(_maps, dim, num_keys, heads)
    curves = {name: {learner: np.zeros((seeds, len(samples))) for learner in LEARNERS} for name in FUNCTIONS}
    bounds = {name: {learner: np.zeros((seeds, len(samples))) for learner in LEARNERS} for name in FUNCTIONS}
    for seed in range(seeds):
        found = _errors(maps(seed), samples, seed, dim, num_keys, FUNCTIONS, device)
        for (name, learner, i), (error, bound) in found.items():
            curves[name][learner][seed, i], bounds[name][learner][seed, i] = error, bound
    first = next(iter(FUNCTIONS))
    over_sizes = {
        size: {
            learner: [
                _errors(
                    {learner: _maps(dim, size, heads, seed)[learner]},
                    samples[-1:],
                    seed,
                    dim,
                    size,
                    {first: FUNCTIONS[first]},
                    device,
                )[first, learner, 0][0]
                for seed in range(seeds)
            ]
            for learner in ("RFA", "RFMLP")
        }
        for size in sizes
    }
    kernels = {"RFA": maps(0)["RFA"], "infinite": RandomAttentionKernel(dim)}
    limit = _errors(kernels, [closed_form], 0, dim, num_keys, {first: FUNCTIONS[first]}, device)
    keys, cosine = list(FUNCTIONS)[:2]
    good = [
        _below(curves[keys], "RFA", "RFMLP") and _below(curves[keys], "RFA", "BRFA"),
        _below(curves[cosine], "BRFA", "RFA") and _below(curves[cosine], "BRFA", "RFMLP"),
    ]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    needed = {name: {learner: _needed(samples, curve) for learner, curve in at.items()} for name, at in curves.items()}
    agree = {
        name: min(LEARNERS, key=lambda at, name=name: bounds[name][at][:, -1].mean())
        == min(LEARNERS, key=lambda at, name=name: curves[name][at][:, -1].mean())
        for name in FUNCTIONS
    }
    last = {name: {learner: float(curve[:, -1].mean()) for learner, curve in at.items()} for name, at in curves.items()}
    smallest = min(float(bound.mean(0).min()) for at in bounds.values() for bound in at.values())
    sets = ", ".join(
        f"N = {size}: {np.mean(at['RFA']):.2f} and {np.mean(at['RFMLP']):.2f}" for size, at in over_sizes.items()
    )
    sentence = (
        f"With {samples[-1]} samples and {heads} heads over {seeds} seeds the relative errors are "
        + "; ".join(f"{name}: " + ", ".join(f"{k} {v:.2f}" for k, v in at.items()) for name, at in last.items())
        + f". Errors of {keys} by RFA and RFMLP for sets of {sets}. The norm bounds of interpolation are "
        f"{smallest:.1f} standard deviations or more, and prefer the best learner on {sum(agree.values())} of "
        f"{len(agree)} functions. With {closed_form} samples infinitely many heads reach "
        f"{limit[first, 'infinite', 0][0]:.2f} where {heads} reach {limit[first, 'RFA', 0][0]:.2f}."
    )
    numbers: dict[str, Any] = {
        "samples": list(samples),
        "relative_error": {n: {k: v.tolist() for k, v in at.items()} for n, at in curves.items()},
        "norm_bound": {n: {k: v.tolist() for k, v in at.items()} for n, at in bounds.items()},
        "samples_to_half": needed,
        "closed_form": {learner: error for (_, learner, _), (error, _) in limit.items()},
        "over_set_sizes": {str(size): at for size, at in over_sizes.items()},
    }
    return Evidence(verdict, sentence, numbers, _figure(samples, curves, over_sizes))


def _maps(dim: int, num_keys: int, heads: int, seed: int) -> dict[str, Any]:
    return {
        "RFA": RandomAttentionFeatures(dim, heads, seed=seed),
        "BRFA": BiasedRandomAttentionFeatures(dim, heads, seed=seed),
        "RFMLP": RandomSequenceFeatures(dim, num_keys, heads * (dim + 1), seed=seed),
    }


def _errors(
    kernels: Mapping[str, Any],
    samples: Sequence[int],
    seed: int,
    dim: int,
    num_keys: int,
    functions: Mapping[str, Callable[..., Tensor]],
    device: str,
) -> dict[tuple[str, str, int], tuple[float, float]]:
    """Relative test error and norm bound of (function, learner, index of the sample size)."""
    splits = {
        name: spherical_sequences(function, max(samples), 1000, dim=dim, num_keys=num_keys, seed=seed)
        for name, function in functions.items()
    }
    split = next(iter(splits.values()))  # all share their inputs
    x, x_test = (tuple(part.float().to(device) for part in half.inputs) for half in (split.train, split.test))
    found = {}
    for learner, kernel in kernels.items():
        K, cross = kernel.gram(x).double(), kernel.gram(x_test, x).double()
        for i, n in enumerate(samples):
            spectrum = GramSpectrum.of(K[:n, :n])
            for name, half in splits.items():
                y = half.train.targets[:n, None].to(device)
                delta = spectrum.choose(y, criterion=GramSpectrum.gcv_error)
                alpha = spectrum.dual(y, delta)
                predicted = y.mean() + (cross[:, :n] @ alpha)[:, 0]
                target = half.test.targets.to(device)
                error = (predicted - target).square().mean() / target.var()
                square = ((y - y.mean()) * spectrum.dual(y, INTERPOLATION)).sum()  # yᵀK⁻¹y
                bound = (square * K[:n, :n].trace()).sqrt() / (n * target.std())
                found[name, learner, i] = float(error), float(bound)
    return found


def _below(curves: Mapping[str, np.ndarray], first: str, second: str) -> bool:
    """Whether the first learner's error is below the second's at the two largest samples, in the mean over seeds."""
    return bool((curves[first].mean(0)[-2:] < curves[second].mean(0)[-2:]).all())


def _needed(samples: Sequence[int], curve: np.ndarray) -> float | None:
    """Samples to a relative error of one half, by interpolation between logarithms; None beyond the largest."""
    error = curve.mean(0)
    for i in range(len(samples)):
        if error[i] < HALF:
            if i == 0:
                return float(samples[0])
            share = math.log(error[i - 1] / HALF) / math.log(error[i - 1] / error[i])
            return float(samples[i - 1] * (samples[i] / samples[i - 1]) ** share)
    return None


def _figure(samples: Sequence[int], curves: Any, over_sizes: Any) -> Figure:
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    axes = figure.subplots(1, len(curves) + 1)
    for axis, (name, at) in zip(axes, curves.items(), strict=False):
        for i, learner in enumerate(LEARNERS):
            mean, deviation = at[learner].mean(0), at[learner].std(0) / math.sqrt(len(at[learner]))
            axis.errorbar(samples, mean, 1.96 * deviation, fmt="-o", color=f"C{i}", markersize=4, label=learner)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.minorticks_off()
        axis.set_xticks(samples, [str(n) for n in samples])
        axis.set_yticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axis.set_ylim(0.8 * min(TICKS), 1.2)
        axis.set_xlabel("samples")
        axis.set_title(name, fontsize=10)
    axes[0].set_ylabel("error / variance")
    axes[0].legend(fontsize=7)
    for i, learner in ((0, "RFA"), (2, "RFMLP")):
        values = [np.mean(at[learner]) for at in over_sizes.values()]
        axes[-1].plot(list(over_sizes), values, "-o", color=f"C{i}", markersize=4)
    axes[-1].set_xlabel("keys")
    axes[-1].set_ylim(bottom=0)
    axes[-1].set_title(f"{next(iter(curves))}, {samples[-1]} samples", fontsize=10)
    return figure


CLAIM = Claim(
    number=39,
    slug="random-feature-attention",
    statement=(
        "A random-feature attention layer learns functions that are means over keys from far fewer samples than random "
        "features of the whole sequence, and query–key matrices with a mean make it learn functions of correlations "
        "from fewer still."
    ),
    baselines=("random features of the whole sequence, as many columns", "the infinite-head kernel in closed form"),
    measure=measure,
    presets={
        "quick": {
            "samples": (250, 500, 1000),
            "heads": 200,
            "seeds": 2,
            "dim": 16,
            "num_keys": 16,
            "sizes": (4, 32),
            "closed_form": 250,
        },
        "full": {
            "samples": (250, 500, 1000, 2000),
            "heads": 500,
            "seeds": 3,
            "dim": 16,
            "num_keys": 16,
            "sizes": (4, 16, 64),
            "closed_form": 500,
        },
        "gpu": {
            "samples": (250, 500, 1000, 2000, 4000, 8000),
            "heads": 1000,
            "seeds": 5,
            "dim": 16,
            "num_keys": 16,
            "sizes": (4, 16, 64),
            "closed_form": 2000,
            "device": "cuda",
        },
    },
)
