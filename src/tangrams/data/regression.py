"""Regression problems with a known function: those on which kernels are compared [018], and the circle [055]."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

from tangrams.data.labelled import Labelled
from tangrams.data.split import Split

Function = Callable[[np.ndarray], np.ndarray]


def parametric_curve(num_train: int = 50, num_test: int = 50, *, noise: float = 0.15, seed: int = 0) -> Split:
    """A spiral in the plane whose height is to be found: x = (z² + 1)(sin t, cos t), y = z [018].

    z runs evenly over [−2, 2] while t runs over [−2π, 2π]; the points are split at random.

    Args:
        num_train: training samples.
        num_test: test samples.
        noise: standard deviation of the noise on all targets.
        seed: fixes split and noise.

    Shape:
        inputs ``(n, 2)``, targets ``(n,)``, float64.
    """
    num = _total(num_train, num_test, noise)
    z, t = np.linspace(-2, 2, num), np.linspace(-2 * math.pi, 2 * math.pi, num)
    x = np.stack([(z**2 + 1) * np.sin(t), (z**2 + 1) * np.cos(t)], axis=1)
    rng = np.random.default_rng(seed)
    order = rng.permutation(num)
    return _split(x[order], z[order] + noise * rng.standard_normal(num), num_train)


def ackley(num_train: int = 500, num_test: int = 500, *, noise: float = 0.75, seed: int = 0) -> Split:
    """Ackley's function on [1, 7]²: many local minima on a slope [018].

    Args:
        num_train: training samples, a Latin hypercube.
        num_test: test samples, another one.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 2)``, targets ``(n,)``, float64.
    """

    def f(x: np.ndarray) -> np.ndarray:
        slope = -20 * np.exp(-0.2 * np.sqrt(0.5 * (x**2).sum(1)))
        return slope - np.exp(0.5 * np.cos(2 * math.pi * x).sum(1)) + math.e + 20

    return _hypercube(f, 1, 7, num_train, num_test, noise, seed)


def franke(num_train: int = 500, num_test: int = 500, *, noise: float = 0.1, seed: int = 0) -> Split:
    """Four Gaussian bumps on [−½, 1]²; the last has a plus sign where Franke's own has a minus [018].

    Args:
        num_train: training samples, a Latin hypercube.
        num_test: test samples, another one.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 2)``, targets ``(n,)``, float64.
    """

    def f(points: np.ndarray) -> np.ndarray:
        x, y = 9 * points[:, 0], 9 * points[:, 1]
        return (
            0.75 * np.exp(-((x - 2) ** 2) / 4 - (y - 2) ** 2 / 4)
            + 0.75 * np.exp(-((x + 1) ** 2) / 49 - (y + 1) / 10)
            + 0.5 * np.exp(-((x - 7) ** 2) / 4 - (y - 3) ** 2 / 4)
            + 0.2 * np.exp(-((x - 4) ** 2) - (y - 7) ** 2)
        )

    return _hypercube(f, -0.5, 1, num_train, num_test, noise, seed)


def nonpolynomial(num_train: int = 500, num_test: int = 500, *, noise: float = 1.0, seed: int = 0) -> Split:
    """((30 + 5x sin 5x)(4 + e^(−5y)) − 100) / 6 on [0, 2]² [018].

    Args:
        num_train: training samples, a Latin hypercube.
        num_test: test samples, another one.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 2)``, targets ``(n,)``, float64.
    """

    def f(points: np.ndarray) -> np.ndarray:
        x, y = points[:, 0], points[:, 1]
        return ((30 + 5 * x * np.sin(5 * x)) * (4 + np.exp(-5 * y)) - 100) / 6

    return _hypercube(f, 0, 2, num_train, num_test, noise, seed)


def friedman1(num_train: int = 500, num_test: int = 500, *, noise: float = 1.5, seed: int = 0) -> Split:
    """Friedman's first problem: ten features on [0, 1], of which five matter [018].

    Args:
        num_train: training samples.
        num_test: test samples.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 10)``, targets ``(n,)``, float64.
    """
    from sklearn.datasets import make_friedman1

    return _split(*make_friedman1(_total(num_train, num_test, noise), noise=noise, random_state=seed), num_train)


def friedman2(num_train: int = 500, num_test: int = 500, *, noise: float = 5.0, seed: int = 0) -> Split:
    """Friedman's second problem: the impedance of a circuit, four features of very different scales [018].

    Args:
        num_train: training samples.
        num_test: test samples.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 4)``, targets ``(n,)``, float64.
    """
    from sklearn.datasets import make_friedman2

    return _split(*make_friedman2(_total(num_train, num_test, noise), noise=noise, random_state=seed), num_train)


def friedman3(num_train: int = 500, num_test: int = 500, *, noise: float = 0.15, seed: int = 0) -> Split:
    """Friedman's third problem: the phase of the circuit [018].

    Args:
        num_train: training samples.
        num_test: test samples.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 4)``, targets ``(n,)``, float64.
    """
    from sklearn.datasets import make_friedman3

    return _split(*make_friedman3(_total(num_train, num_test, noise), noise=noise, random_state=seed), num_train)


def unit_circle(num_train: int = 4, num_test: int = 200, *, seed: int = 0) -> Split:
    """The product of the coordinates on the unit circle: x = (cos γ, sin γ), y = cos γ sin γ [055].

    Training angles are uniform at random; test angles go evenly once around, from −π.

    Args:
        num_train: training samples.
        num_test: test samples.
        seed: fixes the training angles.

    Shape:
        inputs ``(n, 2)``, targets ``(n,)``, float64.
    """
    _total(num_train, num_test, 0.0)
    train = np.random.default_rng(seed).uniform(-math.pi, math.pi, num_train)
    test = np.linspace(-math.pi, math.pi, num_test, endpoint=False)
    angle = np.concatenate([train, test])
    x = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _split(x, x.prod(1), num_train)


def skewed_spiral(num_train: int = 500, num_test: int = 500, *, noise: float = 0.01, seed: int = 0) -> Split:
    """A spiral that is dense where its target is flat: x = 4 t (cos 4πt, sin 4πt), y = exp(x₁), t = u³ [007].

    Five samples in ten lie within 1/8 of the length, around the centre; the few at the end, where the target is steep,
    carry most of the error. Both parts are drawn alike.

    Args:
        num_train: training samples.
        num_test: test samples.
        noise: standard deviation of the noise on all targets.
        seed: fixes points and noise.

    Shape:
        inputs ``(n, 2)``, targets ``(n,)``, float64.
    """
    num = _total(num_train, num_test, noise)
    rng = np.random.default_rng(seed)
    t = rng.random(num) ** 3
    x = 4 * t[:, None] * np.stack([np.cos(4 * math.pi * t), np.sin(4 * math.pi * t)], axis=1)
    return _split(x, np.exp(x[:, 0]) + noise * rng.standard_normal(num), num_train)


def latin_hypercube(num: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Points in [0, 1)^dim, one in each of ``num`` equal slices along every axis: ``(num, dim)``.

    Args:
        num: how many points.
        dim: the dimension.
        rng: draws them.
    """
    slices = np.stack([rng.permutation(num) for _ in range(dim)], axis=1)
    return (slices + rng.random((num, dim))) / num


def _hypercube(f: Function, low: float, high: float, num_train: int, num_test: int, noise: float, seed: int) -> Split:
    num = _total(num_train, num_test, noise)
    rng = np.random.default_rng(seed)
    x = low + (high - low) * np.concatenate([latin_hypercube(n, 2, rng) for n in (num_train, num_test)])
    return _split(x, f(x) + noise * rng.standard_normal(num), num_train)


def _total(num_train: int, num_test: int, noise: float) -> int:
    if num_train < 1 or num_test < 1:
        raise ValueError(f"a regression problem needs samples in both parts, got {num_train} and {num_test}")
    if not noise >= 0:
        raise ValueError(f"noise is a standard deviation ≥ 0, got {noise}")
    return num_train + num_test


def _split(x: np.ndarray, y: np.ndarray, num_train: int) -> Split:
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    return Split(
        Labelled(inputs[:num_train].clone(), targets[:num_train].clone()),
        Labelled(inputs[num_train:].clone(), targets[num_train:].clone()),
    )
