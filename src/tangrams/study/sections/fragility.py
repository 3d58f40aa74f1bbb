"""Section 6: how fragile is it? First-order distance to the decision boundary, checked by an attack."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, TypeVar

import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tangrams.lens.boundary import BoundaryAttack, BoundaryDistances, boundary_attack, boundary_distances
from tangrams.study.estimates import absent, bootstrap, score
from tangrams.study.gallery import is_image, value_range
from tangrams.study.material import Material
from tangrams.study.report import png, signed_png

CLOSEST = 10
ATTACKED = 200
"""Test samples attacked to check the distances, the ten closest among them."""
MOST = 1000
Found = TypeVar("Found", BoundaryDistances, BoundaryAttack)


def measure(material: Material, unit: str) -> dict[str, Any]:
    """Distances of the test samples to the nearest decision boundary, and what crossing it takes.

    Args:
        material: the network and its data.
        unit: of a distance between inputs, in words.
    """
    problem, test = material.problem, material.problem.test
    if problem.task == "regression":
        return absent("a regression has no decision boundary")
    if not all(t.is_floating_point() for t in test.inputs.tensors()):
        return absent("the inputs are no real numbers that could be changed a little")
    threshold = 0.0 if problem.one_logit else None
    found = _on_cpu(boundary_distances(material.model, test.inputs, threshold=threshold))
    reachable = found.distance.isfinite()
    if int(reachable.sum()) < 2:
        return absent("no input gradient leads to a decision boundary")
    closest = found.closest(CLOSEST)
    closest = closest[reachable[closest]]
    generator = torch.Generator().manual_seed(material.seed)
    order = torch.randperm(len(test), generator=generator)
    attacked = torch.cat([closest, order[~torch.isin(order, closest)]])[:ATTACKED]
    attack = _on_cpu(boundary_attack(material.model, test.inputs.take(attacked), threshold=threshold))
    confidence = problem.probabilities(test).max(1).values
    right = test.outputs.argmax(1) == test.given
    distances = found.distance.to(torch.float64)
    one_sided = bool(right.all()) or not bool(right.any())
    return {
        "state": "measured",
        "unit": unit,
        "median": bootstrap(
            lambda index: float(distances[index].median()), len(test), seed=material.seed, resampled="test samples"
        ),
        "distances": [
            {
                "id": test.id(i),
                "distance": float(distances[i]),
                "confidence": float(confidence[i]),
                "right": bool(right[i]),
            }
            for i in range(min(len(test), MOST))
            if bool(reachable[i])
        ],
        "closest": [_close(material, found, attack, int(i), position) for position, i in enumerate(closest)],
        "attack": _agreement(distances[attacked], attack, material.seed),
        "error_detection": None
        if one_sided
        else score(auroc(-distances, ~right, material.seed), {"confidence": auroc(-confidence, ~right, material.seed)}),
        "sensitivity": {
            "median": bootstrap(lambda index: float(found.sensitivity[index].median()), len(test), seed=material.seed),
            "error_detection": None if one_sided else auroc(found.sensitivity, ~right, material.seed),
        },
    }


def _on_cpu(found: Found) -> Found:
    """The same tensors beside the data's labels, wherever the network is."""
    values: list[Any] = [getattr(found, field.name) for field in fields(found)]
    moved: list[Any] = [v.cpu() if isinstance(v, Tensor) else tuple(t.cpu() for t in v) for v in values]
    return type(found)(*moved)


def _close(
    material: Material, found: BoundaryDistances, attack: BoundaryAttack, i: int, position: int
) -> dict[str, Any]:
    test = material.problem.test
    radius = float(attack.radius[position])
    row: dict[str, Any] = {
        "id": test.id(i),
        "predicted": int(found.predicted[i]),
        "toward": int(found.toward[i]),
        "distance": float(found.distance[i]),
        "radius": radius if math.isfinite(radius) else None,
        "sensitivity": float(found.sensitivity[i]),
    }
    image = test.inputs.tensors()[0][i].cpu()
    if is_image(image) and math.isfinite(radius):
        change = attack.perturbation[position]
        low, high = value_range(material.problem.train)
        row |= {"perturbation": signed_png(change), "perturbed": png(image + change, low=low, high=high)}
    return row


def _agreement(distance: Tensor, attack: BoundaryAttack, seed: int) -> dict[str, Any]:
    both = distance.isfinite() & attack.radius.isfinite()
    near, radius = distance[both], attack.radius[both].to(torch.float64)

    def rank_correlation(index: Tensor) -> float:
        return float(spearmanr(near[index], radius[index]).statistic)  # type: ignore[attr-defined]

    def ratio(index: Tensor) -> float:
        return float((radius[index] / near[index].clamp_min(1e-30)).median())

    found: dict[str, Any] = {
        "name": "DeepFool, bisected",
        "ratio": bootstrap(ratio, len(near), seed=seed, resampled="attacked samples"),
    }
    if len(near) > 2:
        found["spearman"] = bootstrap(rank_correlation, len(near), seed=seed, resampled="attacked samples")
    return found


def auroc(suspicion: Tensor, wrong: Tensor, seed: int) -> dict[str, Any]:
    """How well a quantity finds wrong predictions."""
    finite = suspicion.nan_to_num(posinf=1e30, neginf=-1e30)

    def area(index: Tensor) -> float:
        rows = wrong[index]
        if bool(rows.all()) or not bool(rows.any()):
            return float("nan")
        return float(roc_auc_score(rows.numpy(), finite[index].numpy()))

    return bootstrap(area, len(wrong), seed=seed, repeats=100, resampled="test samples")
