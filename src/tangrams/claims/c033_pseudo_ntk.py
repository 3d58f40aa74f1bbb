"""The pseudo-NTK, one gradient per sample, approaches the full tangent kernel as the network widens [033].

Measured on digits at initialisation, over seeds and widths: the relative Frobenius error of κ ⊗ I against the full
kernel Θ, the relative error of its largest eigenvalue, and how far kernel regression with κ is from that with Θ. Beside
it stand the two other scalar kernels: a single logit (as cheap) and the mean over outputs, which by construction is the
*closest* scalar kernel to Θ and costs a gradient per output. The CPU time of both Grams is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from tangrams.claims._networks import ntk_mlp, samples_of, standard_mlp, train
from tangrams.claims.base import Claim, Evidence
from tangrams.kernels import EmpiricalNTK
from tangrams.lens import kernel_regression_gap, max_eig_ratio, ntk_relative_error

_NETWORKS: dict[str, Callable[[int, torch.Generator], nn.Sequential]] = {
    "NTK parametrisation, 1 hidden layer": lambda width, g: ntk_mlp([64, width, 10], g),
    "NTK parametrisation, 2 hidden layers": lambda width, g: ntk_mlp([64, width, width, 10], g),
    "He initialisation, 2 hidden layers": lambda width, g: standard_mlp([64, width, width, 10], g, bias=False),
}
_SCALAR = {"pseudo (sum of logits)": "sum", "single logit": lambda outputs: outputs[:, 0], "mean over logits": "trace"}


def measure(
    widths: Sequence[int], seeds: int, regression_widths: Sequence[int], regression_samples: int, trained_epochs: int
) -> Evidence:
    """Errors over widths and seeds at initialisation, regression at some widths, and both once after training."""
    errors = {name: {kind: [] for kind in _SCALAR} for name in _NETWORKS}
    eigen = {name: [] for name in _NETWORKS}
    for name, build in _NETWORKS.items():
        for width in widths:
            rows = [_errors(build, width, seed) for seed in range(seeds)]
            for kind in _SCALAR:
                errors[name][kind].append([row[kind] for row in rows])
            eigen[name].append([row["max_eig"] for row in rows])
    slopes = {name: _slope(widths, errors[name]["pseudo (sum of logits)"]) for name in _NETWORKS}
    gaps = {width: _regression(width, regression_samples, seed=0) for width in regression_widths}
    trained = _after_training(regression_samples, trained_epochs)
    widest = gaps[max(gaps)]
    falls = all(-0.65 <= slope <= -0.35 for slope in slopes.values())
    eigen_falls = all(np.mean(values[-1]) < np.mean(values[0]) for values in eigen.values())
    regression_falls = gaps[max(gaps)]["relative_difference"] < gaps[min(gaps)]["relative_difference"]
    close = abs(widest["accuracy_gap"]) < 0.02
    good = [falls, eigen_falls, regression_falls, close]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    single = [_slope(widths, errors[name]["single logit"]) for name in _NETWORKS]
    sentence = (
        f"From width {widths[0]} to {widths[-1]} the relative error falls with slopes {min(slopes.values()):.2f} to "
        f"{max(slopes.values()):.2f} in log width (1/√width: −0.5; a single logit: {min(single):.2f} to "
        f"{max(single):.2f}) over {seeds} seeds; at width {max(gaps)} regression on {regression_samples} digits "
        f"agrees with the full kernel's on {widest['agreement']:.1%} of the test digits (accuracy "
        f"{widest['accuracy_scalar']:.3f} against {widest['accuracy_full']:.3f}) and its Gram took "
        f"1/{widest['cpu_ratio']:.0f} of the CPU time."
    )
    numbers: dict[str, Any] = {
        "widths": list(widths),
        "relative_error": errors,
        "max_eig_error": eigen,
        "slope_log_log": slopes,
        "slope_log_log_single_logit": dict(zip(_NETWORKS, single, strict=True)),
        "regression": {str(width): gap for width, gap in gaps.items()},
        "after_training": trained,
    }
    return Evidence(verdict, sentence, numbers, _figure(widths, errors, eigen, gaps))


def _errors(build: Callable[..., nn.Sequential], width: int, seed: int) -> dict[str, float]:
    data, _ = samples_of(None, 12, seed)
    network = build(width, torch.Generator().manual_seed(seed))
    full = EmpiricalNTK(network, "all").gram(data.inputs)
    scalar = {kind: EmpiricalNTK(network, output).gram(data.inputs) for kind, output in _SCALAR.items()}
    found = {kind: ntk_relative_error(full, K) for kind, K in scalar.items()}
    return {**found, "max_eig": max_eig_ratio(full, scalar["pseudo (sum of logits)"])}


def _regression(width: int, samples: int, seed: int) -> dict[str, float]:
    network = standard_mlp([64, width, width, 10], torch.Generator().manual_seed(seed), bias=False).double()
    return _gap(network, samples, seed)


def _after_training(samples: int, epochs: int) -> dict[str, dict[str, float]]:
    """The kernels of a network of width 256 before and after it was trained."""
    generator = torch.Generator().manual_seed(0)
    network = standard_mlp([64, 256, 256, 10], generator).double()
    data, _ = samples_of(None, samples, 0, dtype=torch.float64)
    found = {"before": _gap(network, samples, 0)}
    train(network, data.inputs, data.targets, epochs=epochs, generator=generator)
    return {**found, "after": _gap(network, samples, 0)}


def _gap(network: nn.Module, samples: int, seed: int) -> dict[str, float]:
    data, test = samples_of(None, samples, seed, dtype=torch.float64)
    x_test, y_test = test.inputs[:samples], test.targets[:samples]
    grams, seconds = [], []
    for output in ("all", "sum"):
        kernel = EmpiricalNTK(network, output)
        start = time.thread_time()
        train_gram = kernel.gram(data.inputs)
        seconds.append(time.thread_time() - start)
        grams.append((train_gram, kernel.gram(x_test, data.inputs)))
    phi = EmpiricalNTK(network).phi
    offsets = phi.outputs(data.inputs), phi.outputs(x_test)
    targets = nn.functional.one_hot(data.targets, 10).to(torch.float64)
    full, scalar = grams
    gap = kernel_regression_gap(full, scalar, targets, offsets=offsets, labels=y_test, delta=1e-6)
    return {
        "relative_error": ntk_relative_error(full[0], scalar[0]),
        "relative_difference": gap.relative_difference,
        "agreement": gap.agreement,
        "accuracy_full": gap.accuracy_full,
        "accuracy_scalar": gap.accuracy_scalar,
        "accuracy_gap": gap.accuracy_gap,
        "cpu_seconds_full": seconds[0],
        "cpu_seconds_pseudo": seconds[1],
        "cpu_ratio": seconds[0] / max(seconds[1], 1e-9),
    }


def _slope(widths: Sequence[int], errors: Sequence[Sequence[float]]) -> float:
    return float(np.polyfit(np.log(widths), np.log(np.mean(errors, axis=1)), 1)[0])


def _figure(widths: Sequence[int], errors: Any, eigen: Any, gaps: dict[int, dict[str, float]]) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for i, name in enumerate(errors):
        for kind, line in zip(_SCALAR, ("-o", ":", "--"), strict=True):
            values = np.array(errors[name][kind])
            label = name if line == "-o" else None
            left.loglog(widths, values.mean(1), line, color=f"C{i}", label=label, markersize=4)
        middle.loglog(widths, np.array(eigen[name]).mean(1), "-o", color=f"C{i}", markersize=4)
    reference = np.array(widths, dtype=float) ** -0.5
    for axis in (left, middle):
        axis.loglog(widths, reference * 3, color="0.7", linewidth=1)
        axis.set_xlabel("width")
    left.set_title("‖κ⊗I − Θ‖ / ‖Θ‖", fontsize=10)
    left.legend(fontsize=7, title="● pseudo  ⋯ single logit  -- mean", title_fontsize=7)
    middle.set_title("largest eigenvalue, relative error (pseudo)", fontsize=10)
    wide = sorted(gaps)
    right.semilogx(wide, [gaps[w]["accuracy_full"] for w in wide], "-o", label="accuracy, full kernel")
    right.semilogx(wide, [gaps[w]["accuracy_scalar"] for w in wide], "--o", label="accuracy, pseudo")
    right.semilogx(wide, [gaps[w]["agreement"] for w in wide], ":o", label="same class")
    right.set_xlabel("width")
    right.set_title("kernel regression on digits", fontsize=10)
    right.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=33,
    slug="pseudo-ntk",
    statement=(
        "The kernel of the sum of logits, one gradient per sample, approaches the full tangent kernel of all outputs "
        "at the rate 1/√width at initialisation: in norm, in its largest eigenvalue, and in kernel regression."
    ),
    baselines=("the kernel of a single logit", "the mean over logits, the closest scalar kernel there is"),
    measure=measure,
    presets={
        "quick": {
            "widths": (64, 256, 1024, 4096),
            "seeds": 4,
            "regression_widths": (64, 1024),
            "regression_samples": 300,
            "trained_epochs": 10,
        },
        "full": {
            "widths": (64, 256, 1024, 4096),
            "seeds": 8,
            "regression_widths": (64, 256, 1024, 4096),
            "regression_samples": 450,
            "trained_epochs": 40,
        },
    },
)
