"""Section 4: what is redundant?"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.sections.labels import noun
from tangrams.study.report.svg import Chart, Linear, Log, legend, whole_percent
from tangrams.study.report.words import (
    about,
    count,
    label,
    listing,
    metric,
    metric_name,
    number,
    plural,
    points,
    sample_name,
    setting,
    share,
)

KEY, HEADING = "redundancy", "What is redundant?"
SHOWN = 12  # groups and pairs drawn


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, HEADING, section)
    keep = section["keep"]["value"]
    repeats = section["exact_count"] + section["near_count"]
    return View(
        KEY,
        HEADING,
        _answer(study, section),
        _advice(study, section),
        finding=_finding(study, section),
        weight=0.05 if repeats == 0 and keep >= 0.8 else 0.2 + 0.6 * (1 - _most(section["keep"])),
        quiet=repeats == 0 and keep >= 0.8,
        figures={
            "curve": _chart(study, section),
            "caption": f"Chosen by k-centre, suspected {noun(study)}s last, against random subsets with their spread."
            + (" Triangles: the network itself, retrained." if section["retrained"] else ""),
            "groups": [_group(study, g) for g in section["exact"][:SHOWN]],
            "pairs": [(_group(study, [p["a"], p["b"]]), number(p["similarity"])) for p in section["near"][:SHOWN]],
            "more_groups": _more(len(section["exact"]) - SHOWN, "group"),
            "more_pairs": _more(section["near_count"] - min(SHOWN, len(section["near"])), "pair"),
            "threshold": number(section["threshold"]["value"]),
            "quantile": f"{100 * section['threshold']['quantile']:.4g}",
            "retrained": _retrained(study, section),
            "rows": _rows(study, section),
            "planted": _planted(section["planted"]),
            "score": metric_name(study),
            "noun": noun(study),
        },
    )


def _more(left: int, one: str) -> str:
    """How many are not drawn."""
    return f"and {plural(left, f'more {one}')}" if left > 0 else ""


def _most(estimate: dict[str, Any]) -> float:
    """The upper end of an estimate."""
    return estimate["interval"][1] if estimate["interval"] else estimate["value"]


def within(study: dict[str, Any], section: dict[str, Any]) -> str:
    """The tolerance in words: "one point of accuracy"."""
    if study["task"] == "regression":
        return f"{setting(section['tolerance'])} of R²"
    tolerance = 100 * section["tolerance"]
    return "one point of accuracy" if abs(tolerance - 1) < 1e-9 else f"{setting(tolerance)} points of accuracy"


def _answer(study: dict[str, Any], section: dict[str, Any]) -> str:
    keep = _kept(study, section, about(section["keep"], share))
    if section["exact_count"] == 0 and section["near_count"] == 0:
        if section["keep"]["value"] >= 1:
            return f"Nothing unusual: no sample repeats another, and {keep}."
        if section["keep"]["value"] >= 0.8:
            return f"Nothing unusual: no sample repeats another, and no less than {keep}."
        return f"No sample repeats another, yet {keep}."
    parts = []
    if section["exact_count"]:
        parts.append(
            f"{plural(section['exact_count'], 'training sample repeats', 'training samples repeat')} another exactly"
        )
    if section["near_count"]:
        parts.append(f"{plural(section['near_count'], 'pair of samples is', 'pairs of samples are')} nearly the same")
    return f"{listing([*parts, keep])}."


def _kept(study: dict[str, Any], section: dict[str, Any], part: str) -> str:
    """How much of the data is enough, as a clause."""
    if section["keep"]["value"] >= 1:
        return f"no smaller part that was tried keeps the clean-up model within {within(study, section)}"
    return f"{part} of the training data keep the clean-up model within {within(study, section)}"


def _advice(study: dict[str, Any], section: dict[str, Any]) -> str:
    steps = []
    if section["conflicting"]:
        groups = plural(
            section["conflicting"], "group of identical samples carries", "groups of identical samples carry"
        )
        steps.append(f"{groups} different {noun(study)}s: settle those first.")
    if section["exact_count"]:
        steps.append("Drop the exact repeats, and make sure that none of them is in your test data.")
    check = _network_check(study, section)
    if check:
        steps.append(check)
    elif not steps:
        steps.append("Keep the data as they are.")
    return " ".join(steps)


def _network_check(study: dict[str, Any], section: dict[str, Any]) -> str:
    """What the network itself did when it was retrained nearest to the fraction that the answer names."""
    checked = [r for r in section["retrained"] if r["fraction"] < 1]
    if not checked or not section["retrained_all"]:
        return ""
    form, whole = metric(study), section["retrained_all"]["value"]
    nearest = min(checked, key=lambda r: abs(r["fraction"] - section["keep"]["value"]))
    text = (
        f"retrained on {share(nearest['fraction'])} of the data, the network itself reached "
        f"{form(nearest['chosen']['value'])} against {form(whole)} on all"
    )
    if nearest["chosen"]["value"] >= whole - section["tolerance"]:
        return f"The network bears the curve out: {text}."
    enough = [r for r in checked if r["chosen"]["value"] >= whole - section["tolerance"]]
    if not enough:
        return f"Do not take the curve for the network: {text}."
    least = min(enough, key=lambda r: r["fraction"])
    return (
        f"Do not take the curve for the network: {text}; it needed {share(least['fraction'])} "
        f"({form(least['chosen']['value'])})."
    )


def _finding(study: dict[str, Any], section: dict[str, Any]) -> str:
    text = _kept(study, section, share(section["keep"]["value"]))
    if section["exact_count"]:
        text += f"; {plural(section['exact_count'], 'sample repeats', 'samples repeat')} another exactly"
    return text


def _chart(study: dict[str, Any], section: dict[str, Any]) -> Markup | None:
    curve, form = section["curve"], metric(study)
    if len(curve) < 2:
        return None
    retrained = section["retrained"]
    values = [
        bound
        for row in [*curve, *retrained]
        for e in (row["chosen"], row.get("random"))
        if e
        for bound in (e["interval"] or [e["value"]])
    ]
    values += [e["value"] for e in (section["all"], section["retrained_all"]) if e]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low or 1)
    fractions = [p["fraction"] for p in curve]
    low, high = low - pad, high + pad if study["task"] == "regression" else min(1.0, high + pad)
    ticks = tuple(f for f in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if min(fractions) <= f <= max(fractions))
    chart = Chart(
        Log(min(fractions), max(fractions), whole_percent, ticks),
        Linear(low, high, number if study["task"] == "regression" else whole_percent),
        f"Test {metric_name(study)} against the share of the training data kept",
        "share of the training data kept",
        f"test {metric_name(study)}",
    )
    random = [p["random"] for p in curve]
    if all(e["interval"] for e in random):
        chart.band(fractions, [e["interval"] for e in random], "baseline-1")
    chart.line(fractions, [e["value"] for e in random], "baseline-1")
    chart.line(fractions, [p["chosen"]["value"] for p in curve], "method")
    for p in curve:
        for key, style, shape in (("random", "baseline-1", "square"), ("chosen", "method", "circle")):
            tip = f"{key}, {share(p['fraction'])} kept: {about(p[key], form)}"
            chart.point(p["fraction"], p[key]["value"], style, tip, shape)
    entries = [
        ("clean-up model, chosen", "method", "circle"),
        ("clean-up model, random", "baseline-1", "square"),
    ]
    for row in retrained:
        for key, style in (("random", "baseline-2"), ("chosen", "second")):
            if key in row:
                tip = f"network retrained on {share(row['fraction'])}, {key}: {about(row[key], form)}"
                chart.point(row["fraction"], row[key]["value"], style, tip, "triangle")
    if retrained:
        entries += [("network retrained, chosen", "second", "triangle")]
        if any("random" in row for row in retrained):
            entries += [("network retrained, random", "baseline-2", "triangle")]
    return chart.render() + legend(*entries)


def _group(study: dict[str, Any], identifiers: list[str]) -> list[dict[str, Any]]:
    rows = []
    for identifier in identifiers[:6]:
        sample = study["samples"].get(identifier, {})
        rows.append(
            {
                "id": identifier,
                "name": sample_name(study, identifier),
                "label": label(study, sample.get("label")),
                "sample": sample,
            }
        )
    return rows


def _retrained(study: dict[str, Any], section: dict[str, Any]) -> str:
    """The three checks by retraining, in a sentence."""
    form = metric(study)
    checks = []
    for row in section["retrained"]:
        text = f"{form(row['chosen']['value'])} on {share(row['fraction'])}"
        if "random" in row:
            text += f" (random: {form(row['random']['value'])})"
        checks.append(text)
    if not checks:
        return ""
    text = f"The network itself, retrained once each on the chosen part, reaches {listing(checks)}"
    if section["retrained_all"]:
        text += f"; on all data {about(section['retrained_all'], form)}"
    return f"{text}."


def _rows(study: dict[str, Any], section: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """The curve as a table: kept, chosen, random, difference."""
    form = metric(study)
    rows = []
    for p in section["curve"]:
        difference = p["chosen"]["value"] - p["random"]["value"]
        gain = number(difference) if study["task"] == "regression" else points(difference)
        rows.append((share(p["fraction"]), form(p["chosen"]["value"]), about(p["random"], form), gain))
    return rows


def _planted(planted: dict[str, Any] | None) -> str:
    if not planted:
        return ""
    kinds = [
        f"{count(planted[f'{kind}_found'])} of {count(planted[kind])} {kind} ones"
        for kind in ("exact", "near")
        if planted[kind]
    ]
    return f"Of the planted repeats, {listing(kinds)} were found." if kinds else ""
