"""Section 5, its second half: what the eigenframework says of more data and more features, and how far it was off."""

from __future__ import annotations

from typing import Any

import torch

from tangrams.lens.eigenframework import GramTask, optimal_ridge, projected_predictions, ridge_risk
from tangrams.lens.learning_curve import LearningCurve
from tangrams.operators.ridge import GramSpectrum
from tangrams.study.estimates import bootstrap, estimate, spread
from tangrams.study.material import Material

WITHIN = 0.05
"""How much more risk still counts as doing as well."""

_DRAWS = 3


def forecast(material: Material, curve: LearningCurve, unit: float) -> dict[str, Any]:
    """Risks at the measured sizes and beyond, and a check: what a fifth of the data would have foretold of all.

    Training labels may be noisier than the test set's. That adds the same to every prediction, and is taken out where
    the data are: the prediction is moved to meet the measurement at its own size.

    Args:
        material: of the study.
        curve: the measured risks.
        unit: what a risk is multiplied with.
    """
    spectrum, n = material.kernel.spectrum, len(material.targets)
    ridge = material.delta * spectrum.unit
    task = GramTask.of(spectrum, material.targets)
    sizes = [*curve.sizes, 2 * n, 4 * n]
    shift = float(curve.risk[-1]) - ridge_risk(task, n, ridge).test
    rows = []
    for size in sizes:
        values = [ridge_risk(other, size, ridge).test + shift for other in task.spread()]
        low, high = max(0.0, min(values)), max(values)
        in_use = high - low > 1e-6 * high
        how = f"spread over {len(values)} fitting windows" if in_use else "no law in use: no interval"
        interval = [unit * low, unit * high] if in_use else None
        rows.append({"n": size, "risk": estimate(unit * max(0.0, values[0]), interval, how)})
    return {"eigenframework": rows, "check": _check(material, curve, unit)}


def _check(material: Material, curve: LearningCurve, unit: float) -> dict[str, Any] | None:
    """The whole sample's risk, foretold from random parts of about a fifth of it."""
    kernel, n, part = material.kernel, len(material.targets), curve.sizes[2]
    if part < 20 or curve.sizes[-1] != n:
        return None
    generator = torch.Generator().manual_seed(material.seed)
    found = []
    for _ in range(_DRAWS):
        index = torch.randperm(n, generator=generator)[:part]
        task = GramTask.of(GramSpectrum.of(kernel.gram[index][:, index]), material.targets[index])
        ridge = material.delta * kernel.spectrum.unit
        shift = float(curve.risk[2]) - ridge_risk(task, part, ridge).test
        found.append(max(0.0, ridge_risk(task, n, ridge).test + shift))
    predicted = spread(unit * torch.tensor(found, dtype=torch.float64), "random subsets")
    return {"from": part, "to": n, "predicted": predicted, "measured": unit * float(curve.risk[-1])}


def features(material: Material, unit: float) -> dict[str, Any]:
    """The risk on k random mixtures of the features, drawn and predicted, each at the ridge predicted to be best.

    Args:
        material: of the study.
        unit: what a risk is multiplied with.
    """
    kernel, targets, n = material.kernel, material.targets, len(material.targets)
    spectrum, held_out = kernel.spectrum, material.problem.encode(material.problem.test)
    task = GramTask.of(spectrum, targets)
    widths = [2**e for e in range(4, 30) if 2**e <= n / 2]
    best = {k: optimal_ridge(task, n, k=k) for k in (*widths, float("inf"))}
    least = 1e-7 * spectrum.unit
    all_features, foretold = best[float("inf")]
    outputs = targets.mean(0) + kernel.cross @ spectrum.dual(targets, max(all_features, least) / spectrum.unit)
    losses = (outputs - held_out).square().sum(1)
    shift = float(losses.mean()) - foretold.test
    diagonal = (kernel.cross != 0).any(1).to(torch.float64)
    ridges = {k: max(best[k][0], least) for k in widths}
    draws = [
        projected_predictions(spectrum, kernel.cross, diagonal, targets, ridges, seed=material.seed + i)
        for i in range(_DRAWS)
    ]
    rows = []
    for k in widths:
        risks = torch.stack([(draw[k] - held_out).square().sum(1).mean() for draw in draws])
        predicted = unit * max(0.0, best[k][1].test + shift)
        rows.append({"k": k, "measured": spread(unit * risks, "random draws"), "predicted": predicted})
    limit = (1 + WITHIN) * float(losses.mean()) * unit
    enough = next((row["k"] for row in rows if row["measured"]["value"] <= limit), None)
    further = (2**e for e in range(4, 24) if enough is None and 2**e > n / 2)
    foreseen = next((k for k in further if unit * (optimal_ridge(task, n, k=k)[1].test + shift) <= limit), None)
    return {
        "rows": rows,
        "all": bootstrap(
            lambda index: unit * float(losses[index].mean()), len(losses), seed=material.seed, resampled="test samples"
        ),
        "within": WITHIN,
        "enough": enough,
        "foreseen": foreseen,
    }
