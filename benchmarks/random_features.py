"""Random features of the Gaussian kernel, ours and scikit-learn's: as many as one error takes; in many dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.kernel_approximation import RBFSampler
from torch import Tensor

from benchmarks.harness import Conditions, PeakMemory, Row, alternate
from tangrams.features.random import (
    HadamardRotation,
    IIDCoupling,
    PositiveRandomFeatures,
    SimplexCoupling,
    TrigonometricRandomFeatures,
)

TABLE = "random features of the Gaussian kernel"
ERROR = 0.05
"""Relative error of the kernel matrix, in the Frobenius norm."""
Transform = Callable[[int, int], Callable[[Tensor], Tensor]]
"""Number of features and seed → samples to features, everything drawn."""


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    return [equal_error(conditions), many_dimensions(conditions)]


def equal_error(conditions: Conditions, repeats: int = 10) -> Row:
    """Drawing and mapping ten times the digits, with the number of features that reaches the error."""
    digits = load_digits().data.astype(np.float32)
    deviation = digits.std(0)
    x = torch.from_numpy((digits - digits.mean(0))[:, deviation > 0] / deviation[deviation > 0])
    d, scale = x.shape[1], float(torch.pdist(x[:500]).median())
    exact = TrigonometricRandomFeatures(d, 2, lengthscale=scale).kernel(x.double(), x.double())
    rivals: dict[str, Transform] = {
        "simplex": lambda m, seed: PositiveRandomFeatures(d, m, lengthscale=scale, seed=seed),
        "trigonometric": lambda m, seed: TrigonometricRandomFeatures(d, m + m % 2, lengthscale=scale, seed=seed),
        "RBFSampler": lambda m, seed: _sklearn(m, seed, scale),
    }
    many = x.repeat(repeats, 1)
    calls: dict[str, Callable[[], Any]] = {}
    notes: dict[str, Any] = {}
    for name, make in rivals.items():
        needed, reached = 512, _error(make, 512, x, exact)
        for _ in range(2):
            needed = round(needed * (reached / ERROR) ** 2)
            reached = _error(make, needed, x, exact)
        calls[name] = lambda make=make, needed=needed: make(needed, 0)(many)
        notes[name] = f"{needed} features, error {reached:.3f}, {_peak(calls[name]):.0f} MiB"
    seconds = alternate(calls, dict.fromkeys(calls, 5), conditions.timer)
    ratio = seconds["RBFSampler"] / seconds["simplex"]
    return Row(TABLE, f"error {ERROR:.0%}, {len(many)} × {d}", seconds, ratio, floor=1.0, notes=notes)


def many_dimensions(conditions: Conditions, n: int = 1000, d: int = 4096, m: int = 8192) -> Row:
    """Drawing and mapping in 4,096 dimensions, where a rotation by fast transforms pays."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    scale = (2 * d) ** 0.5
    calls: dict[str, Callable[[], Any]] = {
        "fast simplex": lambda: _fast(d, m, scale)(x),
        "iid": lambda: PositiveRandomFeatures(d, m, lengthscale=scale, coupling=IIDCoupling())(x),
        "RBFSampler": lambda: _sklearn(m, 0, scale)(x),
    }
    seconds = alternate(calls, dict.fromkeys(calls, 3), conditions.timer)
    notes = {name: f"{_peak(call):.0f} MiB" for name, call in calls.items()}
    ratio = seconds["RBFSampler"] / seconds["fast simplex"]
    return Row(TABLE, f"{n} × {d} to {m} features", seconds, ratio, floor=1.0, notes=notes)


def _fast(d: int, m: int, scale: float) -> PositiveRandomFeatures:
    return PositiveRandomFeatures(d, m, lengthscale=scale, coupling=SimplexCoupling(HadamardRotation()))


def _sklearn(m: int, seed: int, scale: float) -> Callable[[Tensor], Tensor]:
    sampler = RBFSampler(gamma=0.5 / scale**2, n_components=m, random_state=seed)
    return lambda x: torch.from_numpy(sampler.fit_transform(x.numpy()))


def _error(make: Transform, m: int, x: Tensor, exact: Tensor, seeds: int = 4) -> float:
    """Root mean square over seeds of the relative error of the kernel matrix."""
    squares = []
    for seed in range(seeds):
        features = make(m, 100 + seed)(x)
        squares.append(float((features @ features.mT - exact).square().sum() / exact.square().sum()))
    return float(np.sqrt(np.mean(squares)))


def _peak(call: Callable[[], Any]) -> float:
    """MiB of this process beyond what it held before, at most during the call."""
    with PeakMemory() as memory:
        call()
    return memory.mib
