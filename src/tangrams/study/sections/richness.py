"""Section 5: how rich is what it learned, and would more data or more features help?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tangrams.features.model_ref import ModelRef
from tangrams.lens.learning_curve import measure_learning_curve
from tangrams.lens.spectra import PowerLawWindows, power_law_windows
from tangrams.study.estimates import absent, bootstrap, estimate
from tangrams.study.material import Material, ridge_outputs
from tangrams.study.sections import more

FEWEST = 100


def measure(material: Material) -> dict[str, Any]:
    """Spectrum, effective dimension, the learning curve, and what feature learning added."""
    spectrum = material.kernel.spectrum
    if len(spectrum) < FEWEST:
        return absent(f"a spectrum of {len(spectrum)} samples is too short to read, {FEWEST} are needed")
    eigenvalues = spectrum.eigenvalues.flip(0) / spectrum.unit
    n = len(spectrum)
    rounding = torch.finfo(ModelRef(material.model).dtype).eps * n**0.5  # three times the norm of a Gram's noise
    positive = max(1, int((eigenvalues > rounding).sum()))
    ranks = np.unique(np.round(np.geomspace(1, positive, 160)).astype(int))
    law = _power_law(eigenvalues, skip=min(material.targets.shape[1], n // 4), last=min(positive, n // 2))
    return {
        "state": "measured",
        "spectrum": {"ranks": ranks.tolist(), "eigenvalues": eigenvalues[ranks - 1].tolist()},
        "exponent": None
        if law is None
        else estimate(law.exponent, [law.low, law.high], f"spread over {len(law.windows)} fitting windows"),
        "windows": [] if law is None else [{"from": a, "to": b, "exponent": alpha} for a, b, alpha in law.windows],
        "effective_dimension": {
            "value": spectrum.effective_dimension(material.delta),
            "delta": material.delta,
            "of": n,
        },
        "risk": _risk(material),
        "features": more.features(material, _unit(material)),
        "feature_learning": _feature_learning(material),
    }


def _power_law(eigenvalues: Tensor, *, skip: int, last: int) -> PowerLawWindows | None:
    """The law of the ranks that are above rounding; None where they are too few, as under a linear model."""
    try:
        return power_law_windows(eigenvalues, skip=skip, last=last)
    except ValueError:
        return None


def _unit(material: Material) -> float:
    """What makes a squared error a percentage of the test targets' variance."""
    held_out = material.problem.encode(material.problem.test)
    return 100 / float((held_out - held_out.mean(0)).square().sum(1).mean())


def _risk(material: Material) -> dict[str, Any]:
    problem, kernel = material.problem, material.kernel
    held_out = problem.encode(problem.test)
    curve = measure_learning_curve(
        kernel.gram, kernel.cross, material.targets, held_out, material.delta, seed=material.seed
    )
    law, unit = curve.fit(), _unit(material)
    n = len(kernel.gram)
    ahead = (2 * n, 4 * n)
    tail = torch.tensor([0.025, 0.975], dtype=torch.float64)
    bands = curve.bootstrap(ahead, seed=material.seed).quantile(tail, dim=0).mT

    def with_interval(value: float, low: float, high: float, how: str) -> dict[str, Any]:
        return estimate(unit * value, [unit * min(low, value), unit * max(high, value)], how)

    measured = zip(curve.sizes, curve.risk.tolist(), curve.intervals(seed=material.seed).tolist(), strict=True)
    return {
        "metric": "squared test error of the clean-up model",
        "unit": "% of the variance",
        "measured": [
            {"n": size, "risk": with_interval(risk, low, high, "95 % bootstrap over subsets and test samples")}
            for size, risk, (low, high) in measured
        ],
        "fit": {"a": unit * law.a, "b": unit * law.b, "c": law.c},
        "extrapolation": [
            {"n": size, "risk": with_interval(law(size), low, high, "95 % bootstrap of the fitted law")}
            for size, (low, high) in zip(ahead, bands.tolist(), strict=True)
        ],
        **more.forecast(material, curve, unit),
    }


def _feature_learning(material: Material) -> dict[str, Any] | None:
    if material.initial is None:
        return None
    problem, test = material.problem, material.problem.test
    before = ridge_outputs(material.initial, material.targets, material.judge(material.initial).delta)
    after = material.cleanup(material.delta)
    wanted = problem.encode(test)
    if problem.task == "classification":
        worth = [(outputs.argmax(1) == test.given).double() for outputs in (after, before)]
    else:
        variance = (wanted - wanted.mean(0)).square().sum(1).mean()
        worth = [1 - (outputs - wanted).square().sum(1) / variance for outputs in (after, before)]
    found = [
        bootstrap(lambda index, v=v: float(v[index].mean()), len(test), seed=material.seed, resampled="test samples")
        for v in (worth[0], worth[1], worth[0] - worth[1])
    ]
    return dict(zip(("trained", "initial", "difference"), found, strict=True))
