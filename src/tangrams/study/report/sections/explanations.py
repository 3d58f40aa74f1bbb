"""Section 2: why did it predict that?"""

from __future__ import annotations

from typing import Any

from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.words import about, count, number, percent, plural, provenance, setting

KEY, HEADING = "explanations", "Why did it predict that?"


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, HEADING, section)
    rows, regression = section["samples"], study["task"] == "regression"
    differ = [r for r in rows if not regression and r["explained"] != r["predicted"]]
    wrong = [r for r in rows if not regression and r["predicted"] != r["label"]]
    return View(
        KEY,
        HEADING,
        _answer(study, section, differ),
        _advice(regression, rows, wrong, differ),
        finding=_finding(rows, wrong, differ, regression),
        weight=0.3 + 0.5 * len(differ) / len(rows) if wrong or differ else 0.1,
        figures={
            "delta": setting(section["delta"]),
            "of": section["of"],
            "quality": _quality(section["quality"]),
            "gap": number(section["quality"]["largest_gap"], 2),
            "regression": regression,
        },
    )


def _answer(study: dict[str, Any], section: dict[str, Any], differ: list[dict[str, Any]]) -> str:
    shown = plural(len(section["samples"]), "test sample")
    cancel = section["quality"]["cancellation"]["value"]
    parts = f"with a median of {number(cancel, 2)} units of pull for every unit that is left after cancelling"
    if study["task"] == "regression":
        return f"Each prediction of the explanation model on {shown} is a sum over the training samples, {parts}."
    if not differ:
        return (
            f"On all {shown} here the explanation model gives the network's class, "
            f"and its logit is a sum over the training samples, {parts}."
        )
    same = count(len(section["samples"]) - len(differ))
    return (
        f"On {same} of {shown} the explanation model gives the network's class, and its logit is a sum over the "
        f"training samples, {parts}; the other {count(len(differ))} say so first."
    )


def _advice(
    regression: bool, rows: list[dict[str, Any]], wrong: list[dict[str, Any]], differ: list[dict[str, Any]]
) -> str:
    if regression:
        return "The worst predictions come first: look at the training samples that pull them up and down."
    if len(differ) > len(rows) / 2:
        return (
            "The explanation model sees another class than the network on most samples: what follows is how the "
            "training labels speak, not how this network decides."
        )
    if wrong:
        return (
            f"Start with the {plural(len(wrong), 'wrong prediction')}: do the supporters look like the sample, "
            "and are any of their labels suspect?"
        )
    return "No sample shown is predicted wrongly: start with the least confident ones." + (
        " Where the two models differ, trust neither explanation." if differ else ""
    )


def _finding(
    rows: list[dict[str, Any]], wrong: list[dict[str, Any]], differ: list[dict[str, Any]], regression: bool
) -> str:
    if regression:
        return f"{plural(len(rows), 'test prediction')} can be taken apart into training samples"
    text = plural(len(wrong), "wrong prediction") if wrong else "no wrong prediction"
    text = f"{text} among {plural(len(rows), 'test sample')} shown"
    return (
        f"{text}; on {count(len(differ))} the explanation model sees another class than the network" if differ else text
    )


def _quality(quality: dict[str, Any]) -> list[dict[str, Any]]:
    """Checks of the explanations, as rows of a table: what, value, uncertainty, baseline."""
    rows = (
        [_row("Top 8 with the explained class as their label", quality["same_class"], percent)]
        if ("same_class" in quality)
        else []
    )
    if "planted_in_top" in quality:
        rows.append(_row("Top 8 whose label was planted wrong", quality["planted_in_top"], percent))
    rows.append(_row("Test samples that share the busiest supporter", quality["busiest"], percent))
    rows.append(_row("Σ|a| / |Σa|, median", quality["cancellation"], number))
    for key, name in (
        ("datamodeling", "Linear datamodeling score"),
        ("removal", "Change of margin after removing the top 30 and retraining"),
    ):
        if key in quality:
            row = _row(name, quality[key]["value"], number)
            baselines = quality[key]["baselines"]
            row["baseline"] = ", ".join(f"{b['name']} {about(b['value'])}" for b in baselines)
            rows.append(row)
    return rows


def _row(name: str, estimate: dict[str, Any], form: Any) -> dict[str, Any]:
    return {
        "name": name,
        "value": form(estimate["value"]),
        "sure": provenance(estimate, form),
        "baseline": "",
    }
