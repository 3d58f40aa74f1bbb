"""Section 4: what is redundant? Duplicates, and how much of the training data serves as well as all of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tangrams.lens.redundancy import exact_duplicates, k_centre_order, near_duplicates, subset_curve, subset_predictions
from tangrams.study.estimates import estimate, share, spread
from tangrams.study.material import Material
from tangrams.study.problem import Problem, network_outputs
from tangrams.study.progress import Advance

TOLERANCE = 0.01
RETRAINED = (0.1, 0.2, 0.3)
"""Fractions at which the network itself is trained again."""
MOST_PAIRS = 50


def measure(material: Material, advance: Advance) -> dict[str, Any]:
    """Duplicates, the curve of clean-up accuracy against the fraction kept, and its check by retraining."""
    train = material.problem.train
    groups = exact_duplicates(*train.inputs.tensors())
    near = near_duplicates(material.kernel.spectrum, material.delta, exclude=groups)
    order = k_centre_order(material.kernel.gram, last=material.errors.flagged)
    curve = subset_curve(
        material.kernel.gram,
        material.kernel.cross,
        material.targets,
        material.problem.score,
        order,
        material.delta,
        seed=material.seed,
    )
    advance(0.2)
    m = len(material.problem.test)
    retrained = _retrained(material, order, advance)
    retrained_all = estimate(network_score(material.problem, material.problem.test.outputs))
    return {
        "state": "measured",
        "exact": [[train.id(i) for i in group] for group in groups],
        "exact_count": sum(len(group) - 1 for group in groups),
        "conflicting": sum(not _same_target(train.given, group) for group in groups),
        "near": [
            {"a": train.id(int(a)), "b": train.id(int(b)), "similarity": float(s)}
            for (a, b), s in zip(near.pairs[:MOST_PAIRS], near.similarity, strict=False)
        ],
        "near_count": len(near.pairs),
        "threshold": {"value": near.threshold, "quantile": near.quantile},
        "curve": [
            {"fraction": f, "chosen": estimate(float(c)), "random": spread(r, "random subsets")}
            for f, c, r in zip(curve.fractions, curve.chosen, curve.random, strict=True)
        ],
        "all": estimate(curve.full, None, f"one test set of {m}"),
        "retrained": retrained,
        "retrained_all": retrained_all if retrained else None,
        "keep": _keep(material, order, curve.fractions),
        "tolerance": TOLERANCE,
        "planted": _planted(material, groups),
    }


def network_score(problem: Problem, outputs: Tensor) -> float:
    """What a network's test outputs are worth: accuracy, or R²."""
    return problem.score((outputs - problem.mean) / problem.scale if problem.task == "regression" else outputs)


def _keep(material: Material, order: Tensor, fractions: tuple[float, ...]) -> dict[str, Any]:
    """The smallest fraction that stays within the tolerance, with its spread over resampled test sets."""
    problem = material.problem
    n, m = len(order), len(problem.test)
    predictions = [
        subset_predictions(
            material.kernel.gram, material.kernel.cross, material.targets, order[: max(2, round(f * n))], material.delta
        )
        for f in fractions
    ]
    wanted = problem.encode(problem.test)
    if problem.task == "classification":
        worth = torch.stack([(p.argmax(1) == problem.test.given).double() for p in predictions])
    else:  # per sample 1 − its share of the squared error, so that the mean is R²
        variance = (wanted - wanted.mean(0)).square().sum(1).mean()
        worth = torch.stack([1 - (p - wanted).square().sum(1) / variance for p in predictions])

    def smallest(index: Tensor) -> float:
        scores = worth[:, index].mean(1)
        enough = scores >= scores[-1] - TOLERANCE - 1e-9
        last_bad = int((~enough).nonzero().max()) if not bool(enough.all()) else -1
        return fractions[last_bad + 1]

    generator = torch.Generator().manual_seed(material.seed)
    draws = [smallest(torch.randint(m, (m,), generator=generator)) for _ in range(200)]
    tail = torch.tensor([0.05, 0.95], dtype=torch.float64)
    low, high = torch.tensor(draws, dtype=torch.float64).quantile(tail, interpolation="nearest").tolist()
    value = smallest(torch.arange(m))
    return estimate(
        value, [min(low, value), max(high, value)], "90 % bootstrap over test samples, on the fractions tried"
    )


def _retrained(material: Material, order: Tensor, advance: Advance) -> list[dict[str, Any]]:
    retrain = material.retrain
    if retrain is None:
        return []
    n = len(order)
    generator = torch.Generator().manual_seed(material.seed)
    rows = []
    for done, fraction in enumerate(RETRAINED, start=1):
        size = max(2, round(fraction * n))
        subsets = (order[:size], torch.randperm(n, generator=generator)[:size])
        chosen, random = (retrained_score(material, index) for index in subsets)
        rows.append({"fraction": fraction, "chosen": chosen, "random": random})
        advance(0.2 + 0.8 * done / len(RETRAINED))
    return rows


def retrained_score(material: Material, index: Tensor) -> dict[str, Any]:
    """The test score of the network trained again on the training samples at ``index``."""
    problem = material.problem
    outputs = retrained_outputs(material, index)
    if problem.task == "classification":
        return share(outputs.argmax(1) == problem.test.given)
    return estimate(network_score(problem, outputs))


def retrained_outputs(material: Material, index: Tensor) -> Tensor:
    """Test outputs of the network trained again on the training samples at ``index``: ``(m, C)``, float64."""
    if material.retrain is None:
        raise ValueError("this study does not know how to train its network again")
    return network_outputs(material.retrain(index), material.problem.test.inputs, "test", material.problem.task)


def _same_target(targets: Tensor | None, group: list[int]) -> bool:
    return targets is None or bool((targets[group] == targets[group[0]]).all())


def _planted(material: Material, groups: list[list[int]]) -> dict[str, int] | None:
    if material.truth is None:
        return None
    together = {frozenset(pair) for group in groups for pair in _pairs(group)}
    copies = [frozenset(pair) for pair in material.truth.copies.tolist()]
    return {"exact": len(copies), "exact_found": sum(pair in together for pair in copies), "near": 0, "near_found": 0}


def _pairs(group: list[int]) -> list[tuple[int, int]]:
    return [(a, b) for i, a in enumerate(group) for b in group[i + 1 :]]
