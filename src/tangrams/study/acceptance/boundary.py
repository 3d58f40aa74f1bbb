"""Does the first-order distance rank samples as an attack's radius does?"""

from __future__ import annotations

from scipy.stats import spearmanr

from tangrams.lens.boundary import boundary_attack, boundary_distances
from tangrams.study.acceptance.base import Bench, Criterion, at_least, listed, told
from tangrams.study.sections.fragility import auroc


def measure_boundary(bench: Bench) -> list[Criterion]:
    """All test samples are attacked."""
    group = "boundary"
    correlations, ratios, crossed, distance_area, confidence_area = [], [], [], [], []
    for material in bench.materials():
        test = material.problem.test
        with bench.steps(f"Attacks, seed {material.seed}"):
            found = boundary_distances(material.model, test.inputs)
            attack = boundary_attack(material.model, test.inputs)
        both = found.distance.isfinite() & attack.radius.isfinite()
        near, radius = found.distance[both].double(), attack.radius[both].double()
        correlations.append(float(spearmanr(near, radius).statistic))  # type: ignore[attr-defined]
        ratios.append(float((radius / near).median()))
        crossed.append(float(attack.crossed.double().mean()))
        wrong = test.outputs.argmax(1) != test.given
        if bool(wrong.any()):
            distance_area.append(auroc(-found.distance.double(), wrong, 0)["value"])
            confidence = material.problem.probabilities(test).max(1).values
            confidence_area.append(auroc(-confidence, wrong, 0)["value"])
    return [
        at_least(group, "Spearman with the attack's radius", correlations, 0.95),
        told(group, "median radius / distance", ratios, listed({"crossed": crossed})),
        told(group, "AUROC for wrong predictions", distance_area, listed({"confidence": confidence_area})),
    ]
