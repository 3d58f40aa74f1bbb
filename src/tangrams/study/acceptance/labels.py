"""Are planted wrong labels found, better than by the loss, and is the count's estimated precision right?"""

from __future__ import annotations

from sklearn.metrics import average_precision_score

from tangrams.study.acceptance.base import Bench, Criterion, at_least, listed, told
from tangrams.study.material import Material
from tangrams.study.sections import labels


def measure_uniform(bench: Bench) -> list[Criterion]:
    """Wrong labels of any other class."""
    group = "labels"
    materials = bench.materials()
    figures = [average_precisions(material) for material in materials]
    ours = [figure.pop("closed-form leave-one-out") for figure in figures]
    baselines = {name: [figure[name] for figure in figures] for name in figures[0]}
    loss = baselines["loss ranking"]
    calibrated, true, inside = [], [], []
    for material in materials:
        section = labels.measure(material)
        row = next(row for row in section["precision"] if row["count"] == section["count"])
        share = section["planted"]["found_in_count"] / section["count"]
        low, high = row["precision"]["interval"]
        calibrated.append(row["precision"]["value"])
        true.append(share)
        inside.append(float(low <= share <= high))
    return [
        at_least(group, "average precision", ours, 0.95, listed(baselines)),
        at_least(group, "planted among the top 10 %", [top_tenth(material) for material in materials], 0.95),
        at_least(group, "average precision above loss ranking", [a - b for a, b in zip(ours, loss, strict=True)], 0.15),
        told(group, "estimated precision of the suspects", calibrated, listed({"true": true})),
        told(group, "true precision inside the interval", inside),
    ]


def measure_confusable(bench: Bench) -> list[Criterion]:
    """Wrong labels of the class that is easily mistaken."""
    group = "confusable"
    materials = [bench.material(bench.confusable(seed)) for seed in bench.seeds]
    figures = [average_precisions(material) for material in materials]
    ours = [figure.pop("closed-form leave-one-out") for figure in figures]
    baselines = {name: [figure[name] for figure in figures] for name in figures[0]}
    return [
        at_least(group, "average precision", ours, 0.95, listed(baselines)),
        told(group, "planted among the top 10 %", [top_tenth(material) for material in materials]),
    ]


def average_precisions(material: Material) -> dict[str, float]:
    """Method → average precision for the planted errors."""
    assert material.truth is not None
    wrong = material.truth.wrong.numpy()
    return {
        name: float(average_precision_score(wrong, scores.numpy()))
        for name, scores in labels.rankings(material).items()
    }


def top_tenth(material: Material) -> float:
    """The share of planted errors among the most suspect 10 %."""
    assert material.truth is not None
    return float(labels.share_found(-material.errors.score, material.truth.wrong).double().mean())
