"""Section 3: which labels look wrong?"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.svg import Chart, Linear, legend, whole_percent
from tangrams.study.report.words import (
    about,
    count,
    label,
    listing,
    number,
    percent,
    plural,
    provenance,
    rough_percent,
    sample_name,
    setting,
)

KEY = "labels"
SHOWN = 96  # rows drawn; the CSV has all
STYLES = (("baseline-1", "square"), ("baseline-2", "triangle"), ("baseline-3", "cross"), ("baseline-4", "square"))


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, heading(study), section)
    suspects, at = section["count"], precision_at(section)
    error = _explained(study, section, at)
    return View(
        KEY,
        heading(study),
        _answer(study, section, at, error),
        _advice(section, at, error),
        finding=_finding(study, section, at, error),
        weight=_weight(section, at, error),
        quiet=suspects == 0,
        figures={
            "rows": [_row(study, rank, row) for rank, row in enumerate(section["suspects"][:SHOWN], 1)],
            "total": len(section["suspects"]),
            "count": suspects,
            "method": section["method"],
            "noun": noun(study),
            "delta": setting(section["delta"]),
            "regression": study["task"] == "regression",
            "precision": _precision_chart(section),
            "curves": _curves_chart(section),
            "scores": _scores(section),
            "calibration_how": section["precision"][0]["precision"]["how"] if section["precision"] else "",
            "calibration": [
                (count(p["count"]), percent(p["precision"]["value"]), provenance(p["precision"], percent))
                for p in section["precision"]
            ],
        },
    )


def precision_at(section: dict[str, Any]) -> dict[str, Any] | None:
    """The estimated precision for the count nearest below the number called suspect, when there is one."""
    below = [p for p in section["precision"] if p["count"] <= section["count"]]
    return max(below, key=lambda p: p["count"])["precision"] if below and section["count"] else None


def told(at: dict[str, Any] | None) -> bool:
    """Whether a precision says something: its interval leaves out at least half of all that it could be."""
    return at is not None and (at["interval"] is None or at["interval"][1] - at["interval"][0] <= 0.5)


def _explained(study: dict[str, Any], section: dict[str, Any], at: dict[str, Any] | None) -> float | None:
    """The clean-up model's own share of test errors, where its disagreements are no more than that and uncounted."""
    if at is not None or not section["count"] or study["task"] == "regression":
        return None
    surrogates = study["surrogates"]
    if surrogates["state"] == "absent":
        return None
    error = 1 - surrogates.get("tuned_cleanup", surrogates["cleanup"])["accuracy"]["value"]
    return error if section["count"] <= error * section["of"] else None


def _weight(section: dict[str, Any], at: dict[str, Any] | None, error: float | None) -> float:
    """How much it stands out: by the share of labels that are expected to be wrong, little where that is not known."""
    if at is None or not told(at):
        return 0.3 if section["count"] and error is None else 0.05
    real = section["count"] * at["value"]
    return min(1.0, 0.35 + 10 * real / max(1, section["of"])) if real >= 0.5 else 0.05


def noun(study: dict[str, Any]) -> str:
    """What a sample carries: a label, or a target in a regression."""
    return "target" if study["task"] == "regression" else "label"


def heading(study: dict[str, Any]) -> str:
    """The question, of labels or of targets."""
    return f"Which {noun(study)}s look wrong?"


def _answer(study: dict[str, Any], section: dict[str, Any], at: dict[str, Any] | None, error: float | None) -> str:
    planted = section["planted"]
    if section["count"] == 0:
        missed = f" {plural(planted['count'], 'label was', 'labels were')} planted wrong and missed." if planted else ""
        labels = plural(section["of"], f"training {noun(study)}")
        return f"Nothing unusual: none of {labels} looks wrong.{missed}"
    labels = plural(section["of"], f"training {noun(study)}")
    looks = f"{count(section['count'])} of {labels} {'looks' if section['count'] == 1 else 'look'} wrong"
    if error is not None:
        text = (
            f"The clean-up model disagrees with {count(section['count'])} of {labels}, no more than its own test error "
            f"of {rough_percent(error)} explains; how many are really wrong is not estimated"
        )
    elif at is None:
        text = f"{looks}; how many really are is not estimated"
    elif not told(at):
        text = f"{looks}; how many really are cannot be told, the estimate is {about(at, percent)}"
    elif at["value"] >= 0.5:
        text = f"{looks}; an estimated {about(at, percent)} of those really are"
    else:  # mostly false alarms: the model disagrees, and says little about the labels
        text = (
            f"The clean-up model disagrees with {count(section['count'])} of {labels}; "
            f"an estimated {about(at, percent)} of those are really wrong"
        )
    if planted:
        found = f"{count(planted['found_in_count'])} of the {plural(planted['count'], 'planted error')}"
        text += f"; {found} are among them"
    return text + "."


def _advice(section: dict[str, Any], at: dict[str, Any] | None, error: float | None) -> str:
    if section["count"] == 0:
        return "Nothing to do."
    if error is not None:
        return "Do not relabel on this: look at the first few, where the model is surest."
    sure = [p for p in section["precision"] if told(p["precision"]) and p["precision"]["value"] >= 0.9]
    if sure:
        best = max(sure, key=lambda p: p["count"])
        return (
            f"Relabel or drop from the top: of the first {count(best['count'])}, an estimated "
            f"{about(best['precision'], percent)} are real; further down, look at each one."
        )
    return (
        "Look at each one before you change it: many of them are likely to be honest but ambiguous samples."
        if told(at)
        else "Look at each one before you change it."
    )


def _finding(study: dict[str, Any], section: dict[str, Any], at: dict[str, Any] | None, error: float | None) -> str:
    name = f"training {noun(study)}"
    if section["count"] == 0:
        return f"no {name} looks wrong"
    if error is not None:
        disputed = plural(section["count"], name)
        return f"the clean-up model disagrees with {disputed}, which its own test error explains"
    if at and told(at) and at["value"] < 0.5:
        disputed = plural(section["count"], name)
        return f"the clean-up model disagrees with {disputed}; about {about(at, percent)} of them are really wrong"
    text = f"{plural(section['count'], f'{name} looks', f'{name}s look')} wrong"
    if at and not told(at):
        return f"{text}; how many really are cannot be told"
    return f"{text}; about {about(at, percent)} of them really are" if at else text


def _row(study: dict[str, Any], rank: int, row: dict[str, Any]) -> dict[str, Any]:
    def shown(identifier: str) -> dict[str, Any]:
        sample = study["samples"].get(identifier, {})
        return {
            "id": identifier,
            "name": sample_name(study, identifier),
            "label": label(study, sample.get("label")),
            "sample": sample,
        }

    return {
        **shown(row["id"]),
        "rank": rank,
        "given": label(study, row["given"]),
        "suggested": label(study, row["suggested"]),
        "score": number(row["score"], 2),
        "neighbours": [shown(n) for n in row["neighbours"]],
        "planted": row.get("planted"),
        "true": label(study, row["true"]) if "true" in row else None,
        "suspect": rank <= study[KEY]["count"],
    }


def _precision_chart(section: dict[str, Any]) -> Markup | None:
    points = [p for p in section["precision"] if p["count"] <= max(30, 3 * section["count"])]
    if len(points) < 2:
        return None
    highest = max(p["count"] for p in points)
    chart = Chart(
        Linear(0, highest * 1.06, count),
        Linear(0, 1, whole_percent),
        "Estimated share of real errors against how many of the ranked labels are taken",
        "labels taken from the top",
        "estimated share that is really wrong",
    )
    if 0 < section["count"] <= highest * 1.06:
        chart.rule(section["count"], "quiet-rule", f"{count(section['count'])} called suspect")
    xs, estimates = [p["count"] for p in points], [p["precision"] for p in points]
    chart.line(xs, [e["value"] for e in estimates], "method")
    for x, e in zip(xs, estimates, strict=True):
        if e["interval"]:
            chart.whisker(x, e["interval"], "method")
        tip = f"first {count(x)}: {about(e, percent)}"
        chart.point(x, e["value"], "method", tip)
    return chart.render()


def _curves_chart(section: dict[str, Any]) -> Markup | None:
    planted = section["planted"]
    if not planted or not planted["curves"]:
        return None
    chart = Chart(
        Linear(0, 1, whole_percent),
        Linear(0, 1, whole_percent),
        "Precision against recall on the planted errors, with the simple baselines",
        "recall: share of the planted errors found",
        "precision: share of those taken that were planted",
    )
    entries, others = [], iter(STYLES * 3)
    drawn = []
    for curve in planted["curves"]:
        style, shape = next(others) if curve["baseline"] else ("method", "circle")
        entries.append((curve["name"], style, shape))
        drawn.append((curve, style, shape))
    for curve, style, shape in reversed(drawn):  # the method on top
        all_found = next((i for i, r in enumerate(curve["recall"]) if r >= 1), len(curve["recall"]) - 1)
        points = list(zip(curve["recall"], curve["precision"], strict=True))[: all_found + 1]
        chart.line([r for r, _ in points], [p for _, p in points], style)
        for recall, precision in points[:: max(1, len(points) // 6)]:
            tip = f"{curve['name']}: precision {percent(precision)} at recall {percent(recall)}"
            chart.point(recall, precision, style, tip, shape)
    return chart.render() + legend(*entries)


def _scores(section: dict[str, Any]) -> list[dict[str, Any]]:
    """Average precision and share in the top tenth, with their baselines, as table rows."""
    planted = section["planted"]
    if not planted:
        return []
    rows = []
    for key, name in (("average_precision", "Average precision"), ("top_tenth", "Planted in the top 10 %")):
        form = number if key == "average_precision" else percent
        score = planted[key]
        rows.append(
            {
                "name": name,
                "value": form(score["value"]["value"]),
                "sure": provenance(score["value"], form),
                "baseline": listing([f"{b['name']} {form(b['value']['value'])}" for b in score["baselines"]]),
            }
        )
    if "suggested_right" in planted:
        right = planted["suggested_right"]
        rows.append(
            {
                "name": "Suggested label is the true one",
                "value": percent(right["value"]),
                "sure": provenance(right, percent),
                "baseline": "",
            }
        )
    return rows
