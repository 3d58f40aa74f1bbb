"""Section 2: why did it predict that? Smoother weights, which add up to the model's output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tangrams.lens.smoother import SmootherExplanations, smoother_explanations
from tangrams.study.estimates import bootstrap, share
from tangrams.study.material import EXPLAIN_DELTA, Material

TOP = 8
"""Supporters and opposers shown by name; all others are summed up."""
SHOWN = 500
"""Test samples written to study.json at most."""


def explain(material: Material) -> SmootherExplanations:
    """Explain every test sample's output: the model's own class, or the first value of a regression."""
    test = material.problem.test
    columns = torch.zeros(len(test), dtype=torch.int64) if material.problem.task == "regression" else None
    return smoother_explanations(
        material.kernel.spectrum, material.kernel.cross, material.targets, delta=EXPLAIN_DELTA, columns=columns
    )


def measure(material: Material) -> dict[str, Any]:
    """Explanations of test samples, and how good they are over all of them."""
    problem = material.problem
    test, train = problem.test, problem.train
    found = explain(material)
    supporters, opposers = found.supporters(TOP), found.opposers(TOP)
    classification = problem.task == "classification"
    probabilities = problem.probabilities(test) if classification else None
    scale, mean = (1.0, 0.0) if classification else (float(problem.scale[0]), float(problem.mean[0]))
    samples = []
    for i in shown(material):
        a = found.contributions[i] * scale
        support = [int(j) for j in supporters[i] if a[j] > 0]
        oppose = [int(j) for j in opposers[i] if a[j] < 0]
        for_all, against_all = float(a.clamp(min=0).sum()), float(a.clamp(max=0).sum())
        samples.append(
            {
                "id": test.id(i),
                "label": _number(test.given, i),
                "predicted": float(test.outputs[i, 0]) if probabilities is None else int(test.outputs[i].argmax()),
                "probabilities": None if probabilities is None else [round(float(p), 6) for p in probabilities[i]],
                "explained": int(found.column[i]) if classification else None,
                "output": float(found.output[i]) * scale + mean,
                "base": float(found.base[i]) * scale + mean,
                "supporters": [{"id": train.id(j), "weight": float(a[j])} for j in support],
                "opposers": [{"id": train.id(j), "weight": float(a[j])} for j in oppose],
                "others_for": max(0.0, for_all - float(a[support].sum())),
                "others_against": min(0.0, against_all - float(a[oppose].sum())),
            }
        )
    return {
        "state": "measured",
        "delta": EXPLAIN_DELTA,
        "samples": samples,
        "of": len(test),
        "quality": _quality(material, found, supporters),
    }


def shown(material: Material) -> list[int]:
    """Which test samples to write: all where they are few, else wrong ones first (at most half), then random ones."""
    test = material.problem.test
    m = len(test)
    if m <= SHOWN:
        return list(range(m))
    if material.problem.task == "classification":
        unlike = (test.outputs.argmax(1) != test.given).double()
    else:
        unlike = (test.outputs - test.given).abs().sum(1)
    first = unlike.argsort(descending=True, stable=True)[: min(SHOWN // 2, int((unlike > 0).sum()))].tolist()
    generator = torch.Generator().manual_seed(material.seed)
    rest = [int(i) for i in torch.randperm(m, generator=generator) if int(i) not in set(first)]
    return sorted(first + rest[: SHOWN - len(first)])


def _quality(material: Material, found: SmootherExplanations, supporters: Tensor) -> dict[str, Any]:
    problem = material.problem
    cancellation = found.cancellation()
    counts = torch.bincount(supporters.flatten())
    quality = {
        "largest_gap": float(found.gap().max()),
        "busiest": share((supporters == int(counts.argmax())).any(1)),
        "cancellation": bootstrap(
            lambda index: float(cancellation[index].median()), len(cancellation), seed=material.seed
        ),
    }
    if problem.task == "classification":
        quality["same_class"] = share(problem.train.given[supporters] == found.column[:, None])
    if material.truth is not None:
        quality["planted_in_top"] = share(material.truth.wrong[supporters])
    return quality


def _number(targets: Tensor, i: int) -> float | int:
    return int(targets[i]) if targets.ndim == 1 else float(targets[i, 0])
