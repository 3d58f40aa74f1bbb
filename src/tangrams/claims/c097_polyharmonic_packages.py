"""A deep cascade of spline packages trains without skips, and scales where one global spline does not [097].

Measured: the closed-form inverse of a constellation against the dense one, in error and in time; digits over splits,
against logistic regression, an RBF support vector machine and one spline of the same kernel over all samples; how
training time grows with the samples for the cascade and for the global spline; whether a cascade of fifty packages
loses training error in every epoch, beside a plain network of that depth; and the closed-form step against the same
step on a Jacobian by autograd.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch.func import functional_call, jacrev

from tangrams.claims._networks import standard_mlp, train
from tangrams.claims.base import Claim, Evidence
from tangrams.data import load
from tangrams.kernels import PolyharmonicKernel
from tangrams.learners import CascadeClassifier, CascadeSolver
from tangrams.nn import PolyharmonicCascade
from tangrams.operators import ConstellationInverse, constellation_nodes, constellation_solve, solve
from tangrams.operators.constellation import OFFSET, polyharmonic

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def measure(
    dimensions: Sequence[int],
    seeds: int,
    hidden: Sequence[int],
    batch_size: int,
    epochs: int,
    sizes: Sequence[int],
    depth: int,
    depth_epochs: int,
    step_samples: int,
    mnist: dict[str, Any] | None,
) -> Evidence:
    """The five measurements, digits over seeds; MNIST where the preset says how."""
    inverse = [_inverse(m) for m in dimensions]
    cascade = lambda seed: CascadeClassifier(hidden, batch_size=batch_size, epochs=epochs, random_state=seed)  # noqa: E731
    accuracy = {name: [] for name in ("cascade", "logistic regression", "RBF-SVM", "one global spline")}
    for seed in range(seeds):
        for name, value in _accuracies(_digits(seed), cascade(seed)).items():
            accuracy[name].append(value)
    times = {name: [_training_seconds(name, n, cascade(0)) for n in sizes] for name in ("cascade", "one global spline")}
    slopes = {name: _slope(sizes, seconds) for name, seconds in times.items()}
    deep = _depth(depth, depth_epochs)
    step = _step(step_samples)
    images = None if mnist is None else _mnist(**mnist)
    mean = {name: float(np.mean(values)) for name, values in accuracy.items()}
    falls = all(np.diff(deep["cascade"]) < 0)
    good = [
        max(row["error"] for row in inverse) < 1e-10 and inverse[-1]["ratio"] > 5,
        mean["cascade"] >= 0.97 and mean["cascade"] >= _rival(mean),
        slopes["cascade"] < slopes["one global spline"] - 0.5,
        falls and deep["accuracy"] > 0.9,
        step["ratio"] > 1,
    ]
    good += [] if images is None else [images["cascade"] >= _rival(images)]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    spread = float(np.std(accuracy["cascade"], ddof=1)) / np.sqrt(seeds)
    sentence = (
        f"The closed form inverts to {max(row['error'] for row in inverse):.0e} and at m = {dimensions[-1]} multiplies "
        f"{inverse[-1]['ratio']:.0f} times as fast as the dense inverse; on digits the cascade has accuracy "
        f"{mean['cascade']:.3f} ± {spread:.3f} over {seeds} splits (logistic regression "
        f"{mean['logistic regression']:.3f}, RBF-SVM {mean['RBF-SVM']:.3f}, one global spline "
        f"{mean['one global spline']:.3f}); training time grows as n^{slopes['cascade']:.1f} against "
        f"n^{slopes['one global spline']:.1f} of the global spline; {depth} packages without skips "
        f"{'lose error in every epoch' if falls else 'do not lose error in every epoch'} (accuracy "
        f"{deep['accuracy']:.3f}, a plain ReLU network of that depth {deep['plain accuracy']:.3f}); a closed-form step "
        f"takes 1/{step['ratio']:.0f} of the time of one by autograd."
    )
    if images is not None:
        sentence += (
            f" On {mnist['samples'] if mnist else 0} MNIST images: {images['cascade']:.4f} (RBF-SVM "
            f"{images['RBF-SVM']:.4f}, logistic regression {images['logistic regression']:.4f})."
        )
    numbers = {
        "inverse": inverse,
        "digits": accuracy,
        "sizes": list(sizes),
        "training_seconds": times,
        "slopes": slopes,
        "depth": deep,
        "step": step,
        "mnist": images,
    }
    return Evidence(verdict, sentence, numbers, _figure(inverse, accuracy, sizes, times, deep))


def _rival(accuracy: dict[str, float]) -> float:
    """The better of the two baselines."""
    return max(accuracy["logistic regression"], accuracy["RBF-SVM"])


def _inverse(m: int) -> dict[str, float]:
    nodes = constellation_nodes(m, torch.float64)
    K = polyharmonic(torch.cdist(nodes, nodes).square()) + OFFSET
    operator = ConstellationInverse(m, dtype=torch.float64)
    error = float((constellation_solve(K) - torch.eye(len(K), dtype=K.dtype)).abs().max())
    dense = torch.linalg.inv(K)
    b = torch.randn(len(K), 10, generator=torch.Generator().manual_seed(0), dtype=K.dtype)
    ours, theirs = _seconds(lambda: operator @ b), _seconds(lambda: dense @ b)
    return {"m": m, "error": error, "seconds": ours, "seconds_dense": theirs, "ratio": theirs / ours}


def _seconds(run: Callable[[], object], turns: int = 7) -> float:
    """The least CPU time of one call."""
    found = []
    for _ in range(turns):
        start = time.thread_time()
        run()
        found.append(time.thread_time() - start)
    return max(min(found), 1e-7)


def _digits(seed: int) -> Split:
    X, y = _all_digits()
    return tuple(train_test_split(X, y, test_size=450, random_state=seed, stratify=y))  # type: ignore[return-value]


def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    return load_digits(return_X_y=True)  # type: ignore[return-value]


def _accuracies(split: Split, cascade: CascadeClassifier) -> dict[str, float]:
    x, x_test, y, y_test = split
    logistic = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    svm = GridSearchCV(SVC(), {"C": [3, 30], "gamma": ["scale", 0.0005]}, cv=3)
    spline = _global_spline(x / 16, y)(x_test / 16).argmax(1)
    return {
        "cascade": cascade.fit(x, y).score(x_test, y_test),
        "logistic regression": logistic.fit(x, y).score(x_test, y_test),
        "RBF-SVM": float((svm.fit(x, y).predict(x_test) == y_test).mean()),
        "one global spline": float((spline == y_test).mean()),
    }


def _global_spline(x: np.ndarray, y: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The spline of the same kernel through the class indicators of all samples."""
    kernel, points = PolyharmonicKernel(), torch.from_numpy(x)
    K = kernel.gram(points)
    K.diagonal().add_(1e-6 * OFFSET)
    weights = solve(K, torch.eye(10, dtype=K.dtype)[torch.from_numpy(y)])
    return lambda new: (kernel.gram(torch.from_numpy(new), points) @ weights).numpy()


def _training_seconds(name: str, n: int, cascade: CascadeClassifier) -> float:
    X, y = _all_digits()
    rng = np.random.default_rng(0)
    index = rng.integers(0, len(X), n)
    X = X[index] / 16 + 0.05 * rng.normal(size=(n, X.shape[1]))
    start = time.thread_time()
    if name == "cascade":
        cascade.set_params(epochs=1).fit(X, y[index])
    else:
        _global_spline(X, y[index])
    return time.thread_time() - start


def _depth(depth: int, epochs: int) -> dict[str, Any]:
    """A cascade and a plain network of the same depth, width 16, on digits."""
    x, x_test, y, y_test = _digits(0)
    cascade = CascadeClassifier((16,) * (depth - 1), batch_size=300, epochs=epochs, alpha=0.5).fit(x, y)
    generator = torch.Generator().manual_seed(0)
    plain = standard_mlp([64] + [16] * (depth - 1) + [10], generator)
    inputs, labels = torch.from_numpy(x / 16).float(), torch.from_numpy(y)
    train(plain, inputs, labels, epochs=epochs, generator=generator)
    with torch.no_grad():
        guess = plain(torch.from_numpy(x_test / 16).float()).argmax(1).numpy()
    return {
        "cascade": cascade.loss_curve_,
        "radius": max(cascade.radius_),
        "accuracy": cascade.score(x_test, y_test),
        "plain accuracy": float((guess == y_test).mean()),
    }


def _step(n: int) -> dict[str, float]:
    """A step by the closed forms, and the same on the Jacobian by autograd."""
    generator = torch.Generator().manual_seed(0)
    net = PolyharmonicCascade([64, 32, 16, 1], generator=generator, dtype=torch.float64)
    with torch.no_grad():
        net.packages[-1].values.uniform_(-1, 1, generator=generator)  # type: ignore[operator]
    x = 0.3 * torch.randn(n, 64, generator=generator, dtype=torch.float64)
    y = x[:, :1]
    solver = CascadeSolver(net)

    def by_autograd() -> object:
        parameters = {name: value.detach() for name, value in net.named_parameters()}
        jacobians = jacrev(lambda values: functional_call(net, values, (x,)))(parameters)
        J = torch.cat([part.reshape(n, -1) for part in jacobians.values()], 1)
        T = J @ J.mT + 1e6 * torch.eye(n, dtype=J.dtype)
        return J.mT @ torch.cholesky_solve((y - net(x)).detach(), torch.linalg.cholesky(T))

    ours, theirs = _seconds(lambda: solver.step(x, y, 1e6), 3), _seconds(by_autograd, 2)
    return {"samples": n, "seconds": ours, "seconds_autograd": theirs, "ratio": theirs / ours}


def _mnist(
    samples: int, test: int, hidden: Sequence[int], batch_size: int, epochs: int, device: str
) -> dict[str, float]:
    split = load("mnist", num_train=samples, num_test=test)
    x, x_test = split.train.inputs.flatten(1), split.test.inputs.flatten(1)
    y, y_test = split.train.targets.numpy(), split.test.targets.numpy()
    cascade = CascadeClassifier(hidden, batch_size=batch_size, epochs=epochs).fit(x.to(device), y)
    return {
        "cascade": cascade.score(x_test.to(device), y_test),
        "RBF-SVM": SVC(C=5, gamma="scale").fit(x.numpy(), y).score(x_test.numpy(), y_test),
        "logistic regression": LogisticRegression(C=0.05, max_iter=60).fit(x, y).score(x_test, y_test),
    }


def _slope(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Of the last three sizes, where the leading power shows."""
    return float(np.polyfit(np.log(sizes[-3:]), np.log(seconds[-3:]), 1)[0])


def _figure(inverse: Any, accuracy: Any, sizes: Sequence[int], times: Any, deep: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(13, 3.4), layout="constrained")
    first, second, third, fourth = figure.subplots(1, 4)
    m = [row["m"] for row in inverse]
    first.loglog(m, [row["seconds"] for row in inverse], "-o", label="closed form")
    first.loglog(m, [row["seconds_dense"] for row in inverse], "--o", label="dense inverse")
    first.set(xlabel="m", title="seconds of a product, 10 columns")
    first.legend(fontsize=7)
    second.boxplot(list(accuracy.values()), tick_labels=[name.replace(" ", "\n", 1) for name in accuracy])
    second.tick_params(axis="x", labelsize=7)
    second.set_title("accuracy on digits")
    for name, seconds in times.items():
        third.loglog(sizes, seconds, "-o", label=name)
    third.set(xlabel="samples", title="seconds of training")
    third.legend(fontsize=7)
    fourth.semilogy(np.arange(1, len(deep["cascade"]) + 1), deep["cascade"], "-o", markersize=3)
    fourth.set(xlabel="epoch", title="mean squared error, deep cascade")
    return figure


CLAIM = Claim(
    number=97,
    slug="polyharmonic-packages",
    statement=(
        "Packages of polyharmonic splines on the constellation {0, ±eᵢ} have forward passes and derivatives in closed "
        "form, linear in the dimension; their cascades train at great depth without skips, are as accurate as the "
        "usual baselines, and scale in the number of samples where one global spline is cubic."
    ),
    baselines=("logistic regression", "RBF support vector machine", "one spline of the same kernel over all samples"),
    measure=measure,
    presets={
        "quick": {
            "dimensions": (10, 100, 1000),
            "seeds": 3,
            "hidden": (32, 16),
            "batch_size": 300,
            "epochs": 5,
            "sizes": (400, 800, 1600),
            "depth": 50,
            "depth_epochs": 6,
            "step_samples": 200,
            "mnist": None,
        },
        "full": {
            "dimensions": (10, 100, 1000, 2500),
            "seeds": 8,
            "hidden": (32, 16),
            "batch_size": 300,
            "epochs": 10,
            "sizes": (500, 1000, 2000, 4000),
            "depth": 50,
            "depth_epochs": 12,
            "step_samples": 400,
            "mnist": {
                "samples": 10_000,
                "test": 5000,
                "hidden": (100, 20, 20),
                "batch_size": 1000,
                "epochs": 10,
                "device": "cpu",
            },
        },
        "gpu": {
            "dimensions": (10, 100, 1000, 4000),
            "seeds": 8,
            "hidden": (32, 16),
            "batch_size": 300,
            "epochs": 10,
            "sizes": (1000, 2000, 4000, 8000),
            "depth": 500,
            "depth_epochs": 12,
            "step_samples": 1000,
            "mnist": {
                "samples": 10_000,
                "test": 10_000,
                "hidden": (200, 50, 50),
                "batch_size": 2000,
                "epochs": 30,
                "device": "cuda",
            },
        },
    },
    data={"full": ("mnist",), "gpu": ("mnist",)},
)
