"""Section 3: which labels look wrong? Margins of a model that did not see them, and how many finds are real."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

from tangrams.lens.label_errors import LabelErrors, calibrate_label_errors, count_errors, neighbour_votes
from tangrams.operators.ridge import GramSpectrum
from tangrams.study.estimates import bootstrap, estimate, score, share
from tangrams.study.material import Material, Truth

MOST = 500
"""Suspects written to study.json at most."""
COUNTS = (10, 20, 50, 100, 200, 500)
"""Counts for which a precision is estimated, beside that of all suspects."""
MOST_FALSE_ALARMS = 0.25
"""Share of right labels that a kernel may suspect and still be used to count the wrong ones."""


def measure(material: Material) -> dict[str, Any]:
    """Suspects, the estimated precision of every count, and the truth where errors were planted."""
    errors, train = material.errors, material.problem.train
    return {
        "state": "measured",
        "method": "leave-one-out",
        "delta": errors.delta,
        "count": errors.count,
        "of": len(train),
        "suspects": [_suspect(material, int(i)) for i in errors.order[: min(max(errors.count, 12), MOST)]],
        "precision": _precision(material) if material.problem.task == "classification" else [],
        "planted": None if material.truth is None else _planted(material, material.truth),
    }


def rankings(material: Material) -> dict[str, Tensor]:
    """Method → how suspect each label is, larger is more suspect; ours first, then the baselines."""
    problem = material.problem
    train = problem.train
    scores = {"closed-form leave-one-out": -material.errors.score}
    if problem.task == "classification":
        scores["loss ranking"] = torch.nn.functional.cross_entropy(train.outputs, train.given, reduction="none")
        flat = train.flat_inputs()
        if flat is not None:
            scores["input neighbours"] = -neighbour_votes(flat, train.given)
    else:
        residual = material.targets - problem.standardised_outputs(train)
        scores["loss ranking"] = residual.square().sum(1)
    if material.initial is not None:
        scores["untrained network's kernel"] = -material.judge(material.initial).score
    return scores


def share_found(scores: Tensor, wrong: Tensor, fraction: float = 0.1) -> Tensor:
    """For each planted error whether it is among the most suspect ``fraction``: ``(number planted,)``, bool."""
    most = scores.argsort(descending=True, stable=True)[: round(fraction * len(scores))]
    among = torch.zeros(len(scores), dtype=torch.bool)
    among[most] = True
    return among[wrong]


def _suspect(material: Material, i: int) -> dict[str, Any]:
    errors, train = material.errors, material.problem.train
    row: dict[str, Any] = {"id": train.id(i), "score": float(errors.score[i])}
    similarity = material.kernel.gram[i].clone()
    similarity[i] = -torch.inf
    similarity[errors.flagged] = -torch.inf
    if material.problem.task == "classification":
        suggested = int(errors.suggested[i])
        row |= {"given": int(train.given[i]), "suggested": suggested}
        similarity[train.given != suggested] = -torch.inf
    else:
        scale, mean = material.problem.scale[0], material.problem.mean[0]
        row |= {"given": float(train.given[i, 0]), "suggested": float(errors.suggested[i, 0] * scale + mean)}
    nearest = similarity.topk(min(2, len(train)))
    row["neighbours"] = [train.id(int(j)) for j in nearest.indices[nearest.values > -torch.inf]]
    if material.truth is not None:
        row |= {"planted": bool(material.truth.wrong[i]), "true": int(material.truth.labels[i])}
    return row


def _precision(material: Material) -> list[dict[str, Any]]:
    errors, problem = material.errors, material.problem
    train, num_classes = problem.train, len(problem.classes)
    blind = _blind_kernel(material)
    if blind is None or int((~errors.flagged).sum()) < 2:
        return []
    spectrum, cross, name = blind
    try:
        count = count_errors(spectrum, cross, train.given, problem.test.given, num_classes, seed=material.seed)
    except ValueError:  # a kernel to which every label is suspect counts nothing
        return []
    if count.false_alarms > MOST_FALSE_ALARMS:
        return []
    if not bool(count.bootstrap(seed=material.seed).any()):  # held-out samples are harder: their alarms say nothing
        return []
    calibration = calibrate_label_errors(
        material.kernel.spectrum, train.given, num_classes, errors, count, seed=material.seed
    )
    counts = torch.tensor(sorted({k for k in (*COUNTS, errors.count) if 0 < k <= len(train)}))
    how = f"95 % bootstrap of the number of errors by {name}, test labels taken as right"
    rows = zip(
        counts,
        calibration.precision(counts),
        calibration.intervals(counts, seed=material.seed),
        calibration.recall(counts),
        strict=True,
    )
    return [
        {
            "count": int(k),
            "precision": estimate(float(p), [min(float(low), float(p)), max(float(high), float(p))], how),
            "recall": estimate(float(r), None, f"{len(calibration.flipped)} flips, features not learned again"),
        }
        for k, p, (low, high), r in rows
    ]


def _blind_kernel(material: Material) -> tuple[GramSpectrum, Tensor, str] | None:
    """A kernel made without the labels: the untrained network's, else a Gaussian one on the inputs."""
    if material.initial is not None:
        return material.initial.spectrum, material.initial.cross, "the untrained network's kernel"
    train, test = material.problem.train.flat_inputs(), material.problem.test.flat_inputs()
    if train is None or test is None:
        return None
    squares, cross = torch.cdist(train, train).square(), torch.cdist(test, train).square()
    width = float(squares.median()) or 1.0
    return GramSpectrum.of(torch.exp(-squares / width)), torch.exp(-cross / width), "a Gaussian kernel on the inputs"


def _planted(material: Material, truth: Truth) -> dict[str, Any] | None:
    wrong = truth.wrong
    if not bool(wrong.any()):
        return None
    errors: LabelErrors = material.errors
    scores = rankings(material)
    ours = next(iter(scores))

    def precision_of(name: str) -> Any:
        values, planted = scores[name].numpy(), wrong.numpy()

        def of(index: Tensor) -> float:
            rows = index.numpy()
            if not planted[rows].any():
                return float("nan")
            return float(average_precision_score(planted[rows], values[rows]))

        return of

    everyone = torch.arange(len(wrong))
    chance = float(wrong.double().mean())
    average = bootstrap(precision_of(ours), len(wrong), seed=material.seed, repeats=100, resampled="training samples")
    return {
        "count": int(wrong.sum()),
        "found_in_count": int((wrong & errors.flagged).sum()),
        "average_precision": score(
            average,
            {name: precision_of(name)(everyone) for name in scores if name != ours} | {"random": chance},
        ),
        "top_tenth": score(
            share(share_found(scores[ours], wrong)),
            {name: share(share_found(scores[name], wrong)) for name in scores if name != ours} | {"random": 0.1},
        ),
        "suggested_right": share(errors.suggested[wrong] == truth.labels[wrong]),
        "curves": [{"name": name, "baseline": name != ours} | _curve(values, wrong) for name, values in scores.items()],
    }


def _curve(scores: Tensor, wrong: Tensor) -> dict[str, list[float]]:
    hits = wrong[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    ranks = torch.arange(1, len(hits) + 1)
    keep = np.unique(np.round(np.geomspace(1, len(hits), 80)).astype(int)) - 1
    return {"recall": (hits / hits[-1])[keep].tolist(), "precision": (hits / ranks)[keep].tolist()}
