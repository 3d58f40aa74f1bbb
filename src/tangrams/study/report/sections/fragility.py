"""Section 6: how fragile is it?"""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from markupsafe import Markup

from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.svg import Chart, Linear, Log, legend
from tangrams.study.report.words import about, count, label, listing, number, plural, provenance, sample_name, setting

KEY, HEADING = "fragility", "How fragile is it?"


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, HEADING, section)
    return View(
        KEY,
        HEADING,
        _answer(study, section),
        _advice(section),
        finding=_finding(study, section),
        weight=0.25,
        figures={
            "histogram": _histogram(section),
            "caption": _caption(section),
            "closest": [_closest(study, row) for row in section["closest"]],
            "unit": section["unit"],
            "attack": section["attack"]["name"],
            "spearman": _spearman(section["attack"]),
            "ratio": about(section["attack"]["ratio"]),
            "median": provenance(section["median"]),
            "sensitivity": about(section["sensitivity"]["median"]),
            "detection": _detection(section),
        },
    )


def _answer(study: dict[str, Any], section: dict[str, Any]) -> str:
    text = (
        f"The median test sample is {about(section['median'])} from the nearest decision boundary "
        f"({section['unit']}, first order)"
    )
    if not section["closest"]:
        return f"{text}."
    nearest = section["closest"][0]
    crossed = [r for r in section["closest"] if r["radius"] is not None]
    text += (
        f"; the closest, {sample_name(study, nearest['id'])}, at {number(nearest['distance'])}, would turn from "
        f"{label(study, nearest['predicted'])} to {label(study, nearest['toward'])}"
    )
    if len(crossed) == len(section["closest"]):
        return f"{text}; an attack confirmed the {count(len(crossed))} closest."
    return f"{text}; an attack crossed on {count(len(crossed))} of the {count(len(section['closest']))} closest."


def _advice(section: dict[str, Any]) -> str:
    reach = section["closest"][-1]["distance"] if section["closest"] else section["median"]["value"]
    return (
        f"Compare these lengths with the noise of your inputs: {number(reach)} is enough for any of the closest. "
        "To find errors, sort by confidence instead."
    )


def _finding(study: dict[str, Any], section: dict[str, Any]) -> str:
    text = f"the median test sample is {number(section['median']['value'])} from a decision boundary"
    if not section["closest"]:
        return text
    return f"{text}, the closest {number(section['closest'][0]['distance'])}"


def _histogram(section: dict[str, Any]) -> Markup | None:
    rows = [r for r in section["distances"] if r["distance"] > 0]
    if len(rows) < 5:
        return None
    distances = [r["distance"] for r in rows]
    low = max(min(distances), max(distances) * 1e-4)
    high = max(distances)
    if high <= low * 1.001:
        return None
    bins = 24
    edges = [low * (high / low) ** (i / bins) for i in range(bins + 1)]
    right, wrong = [0] * bins, [0] * bins
    for row in rows:
        place = math.log(max(row["distance"], low) / low) / math.log(high / low)
        (right if row["right"] else wrong)[min(bins - 1, int(place * bins))] += 1
    top = max(r + w for r, w in zip(right, wrong, strict=True))
    chart = Chart(
        Log(low, high, setting),
        Linear(0, top * 1.12, count),
        "How many test samples lie how far from the decision boundary, right and wrong predictions apart",
        f"distance to the decision boundary ({section['unit']})",
        "test samples",
    )
    for i in range(bins):
        span = f"{number(edges[i], 2)} to {number(edges[i + 1], 2)}"
        if right[i]:
            tip = f"{span}: {plural(right[i], 'right prediction')}"
            chart.column(edges[i], edges[i + 1], wrong[i], wrong[i] + right[i], "right", tip)
        if wrong[i]:
            tip = f"{span}: {plural(wrong[i], 'wrong prediction')}"
            chart.column(edges[i], edges[i + 1], 0, wrong[i], "wrong", tip)
    chart.rule(section["median"]["value"], "quiet-rule", "median")
    return chart.render() + legend(("right", "right", "column"), ("wrong", "wrong", "column"))


def _caption(section: dict[str, Any]) -> str:
    """Medians of right and wrong predictions, where there are both."""
    right, wrong = ([r["distance"] for r in section["distances"] if r["right"] is side] for side in (True, False))
    if not wrong or not right:
        return f"{plural(len(section['distances']), 'test sample')}, on a log axis."
    return (
        f"Median distance of the {plural(len(wrong), 'wrong prediction')} {number(median(wrong))}, "
        f"of the {count(len(right))} right ones {number(median(right))}."
    )


def _closest(study: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": sample_name(study, row["id"]),
        "sample": study["samples"].get(row["id"], {}),
        "predicted": label(study, row["predicted"]),
        "toward": label(study, row["toward"]),
        "distance": number(row["distance"]),
        "radius": number(row["radius"]) if row["radius"] is not None else "not crossed",
        "sensitivity": number(row["sensitivity"]),
        "perturbation": row.get("perturbation"),
        "perturbed": row.get("perturbed"),
    }


def _spearman(attack: dict[str, Any]) -> str:
    if "spearman" not in attack:
        return "The rank correlation with the attack's radius was not measured."
    return f"The two rank samples alike: Spearman correlation {about(attack['spearman'])}, {attack['spearman']['how']}."


def _detection(section: dict[str, Any]) -> str:
    """What distance and sensitivity say about errors, beside confidence."""
    score = section["error_detection"]
    if score is None:
        return "With no wrong prediction, or nothing else, how well distance finds errors cannot be said."
    value, best = score["value"]["value"], max(b["value"]["value"] for b in score["baselines"])
    beside = listing([f"{b['name']} {number(b['value']['value'])}" for b in score["baselines"]])
    text = f"As a detector of wrong predictions a small distance has AUROC {about(score['value'])}, beside {beside}"
    bounds = score["value"]["interval"]
    if value <= best:
        text += "; it does not beat confidence."
    elif bounds is None or bounds[0] <= best:
        text += "; that it beats confidence cannot be told from these samples."
    else:
        text += "; here it is the larger number."
    sensitive = section["sensitivity"]["error_detection"]
    return f"{text} Sensitivity has {about(sensitive)}." if sensitive else text
