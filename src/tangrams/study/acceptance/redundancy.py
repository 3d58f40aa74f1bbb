"""Are planted copies found, and do chosen subsets serve at least as well as random ones?"""

from __future__ import annotations

from tangrams.study.acceptance.base import Bench, Criterion, at_least, listed, told
from tangrams.study.sections import redundancy


def measure_redundancy(bench: Bench) -> list[Criterion]:
    """Exact duplicates, and the curve of clean-up accuracy against the fraction kept."""
    group = "redundancy"
    found = []
    for material in bench.materials():
        with bench.steps(f"Subsets, with short retrainings, seed {material.seed}") as advance:
            found.append(redundancy.measure(material, advance))
    shares = [row["planted"]["exact_found"] / row["planted"]["exact"] for row in found]
    criteria = [at_least(group, "exact duplicates found", shares, 1.0)]
    for position, point in enumerate(found[0]["curve"]):
        if point["fraction"] > 0.3:
            continue
        points = [row["curve"][position] for row in found]
        gains = [p["chosen"]["value"] - p["random"]["value"] for p in points]
        note = listed(
            {"chosen": [p["chosen"]["value"] for p in points], "random": [p["random"]["value"] for p in points]}
        )
        criteria.append(at_least(group, f"clean-up at {point['fraction']:.0%} kept, above random", gains, 0.0, note))
    for position, point in enumerate(found[0]["retrained"]):
        points = [row["retrained"][position] for row in found]
        gains = [p["chosen"]["value"] - p["random"]["value"] for p in points]
        note = listed(
            {"chosen": [p["chosen"]["value"] for p in points], "random": [p["random"]["value"] for p in points]}
        )
        criteria.append(told(group, f"retrained at {point['fraction']:.0%} kept, above random", gains, note))
    return criteria
