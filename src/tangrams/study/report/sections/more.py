"""Section 5, its second half: more data by the eigenframework, and more features."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tangrams.study.report.svg import Chart, Linear, Log, legend, padded
from tangrams.study.report.words import about, count, number, percent, rough_percent, setting, share


def check(risk: dict[str, Any] | None) -> str:
    """How far off a prediction of this study's own was."""
    if risk is None or risk["check"] is None:
        return ""
    found = risk["check"]
    form = percent if risk["unit"] == "%" else number
    unit = f", in {risk['unit']}" if risk["unit"] not in ("", "%") else ""
    predicted, measured = found["predicted"]["value"], found["measured"]
    text = (
        f"How far to trust it: from {count(found['from'])} samples the eigenframework foretold a risk of "
        f"{about(found['predicted'], form)} with {count(found['to'])}; measured were {form(measured)}{unit}"
    )
    if measured <= 0:
        return f"{text}."
    off = predicted / measured - 1
    return f"{text}, so it was {rough_percent(abs(off))} too {'high' if off > 0 else 'low'}."


def feature_words(study: dict[str, Any]) -> str:
    """Whether more features would help, in two sentences."""
    found = study["richness"]["features"]
    total, within = count(study["model"]["trainable"]), share(found["within"])
    if not found["rows"]:
        return ""
    if found["enough"] is not None:
        text = (
            f"{count(found['enough'])} random mixtures of its {total} gradient features serve the clean-up model "
            f"within {within} of the risk with all of them: more of these features would gain little."
        )
    else:
        most = max(found["rows"], key=lambda row: row["k"])
        loss = most["measured"]["value"] / found["all"]["value"] - 1 if found["all"]["value"] > 0 else 0.0
        text = (
            f"{count(most['k'])} random mixtures of its {total} gradient features still have {rough_percent(loss)} "
            "more risk than all of them"
        )
        if found["foreseen"] is not None:
            text += f"; about {count(found['foreseen'])} are predicted to come within {within}"
        text += "."
    return f"{text} Whether a wider network would learn better ones cannot be read off this one."


def clause(study: dict[str, Any]) -> str:
    """The same as the end of a sentence; empty where nothing was settled."""
    enough = study["richness"]["features"]["enough"]
    return f"; {count(enough)} random mixtures of its features would do" if enough is not None else ""


def chart(features: dict[str, Any], risk_unit: str, sizes: Any) -> Markup | None:
    """Risk against the number of mixtures, with all features as a line.

    Args:
        features: the numbers.
        risk_unit: of the risk.
        sizes: chooses the numbers to write at the axis.
    """
    rows = features["rows"]
    if len(rows) < 2:
        return None
    form = percent if risk_unit == "%" else number
    k = [row["k"] for row in rows]
    values = [row["measured"]["value"] for row in rows] + [row["predicted"] for row in rows]
    values += [bound for row in rows for bound in (row["measured"]["interval"] or [])] + [features["all"]["value"]]
    drawn = Chart(
        Log(min(k), max(k), count, sizes(min(k), max(k))),
        Linear(*padded(values), percent if risk_unit == "%" else setting),
        "Risk against the number of random mixtures of the features",
        "random mixtures of the features",
        f"risk{f' ({risk_unit})' if risk_unit not in ('', '%') else ''}",
    )
    drawn.line([min(k), max(k)], [features["all"]["value"]] * 2, "fit")
    drawn.line(k, [row["predicted"] for row in rows], "baseline-1")
    drawn.line(k, [row["measured"]["value"] for row in rows], "method")
    for row in rows:
        tip = f"eigenframework, {count(row['k'])} mixtures: {form(row['predicted'])}"
        drawn.point(row["k"], row["predicted"], "baseline-1", tip, "square")
        if row["measured"]["interval"]:
            drawn.whisker(row["k"], row["measured"]["interval"], "method")
        tip = f"{count(row['k'])} mixtures: {about(row['measured'], form)}"
        drawn.point(row["k"], row["measured"]["value"], "method", tip)
    entries = [
        ("measured", "method", "circle"),
        ("eigenframework", "baseline-1", "square"),
        ("with all features", "fit", "line"),
    ]
    return drawn.render() + legend(*entries)
