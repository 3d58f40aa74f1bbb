"""Section 5: how rich is what it learned, and would more data or more features help?"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tangrams.study.report.sections import more
from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.svg import Chart, Linear, Log, legend, padded
from tangrams.study.report.words import (
    BLANK,
    Number,
    about,
    count,
    interval,
    metric,
    metric_name,
    number,
    percent,
    plural,
    points,
    provenance,
    rough_percent,
    setting,
)

KEY, HEADING = "richness", "How rich is what it learned, and would more data or more features help?"


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, HEADING, section)
    gain = _gain(section["risk"])
    dimension = section["effective_dimension"]
    return View(
        KEY,
        HEADING,
        _answer(section, more.clause(study)),
        _advice(section["risk"]),
        finding=_finding(section),
        weight=0.2 + (min(0.5, 2 * max(0.0, gain or 0.0)) if _certain(section["risk"]) else 0.0),
        figures={
            "spectrum": _spectrum_chart(section),
            "caption": _caption(study, section),
            "risk": _risk_chart(section["risk"]),
            "features": more.chart(section["features"], section["risk"]["unit"] if section["risk"] else "", _sizes),
            "feature_words": more.feature_words(study),
            "check": more.check(section["risk"]),
            "learning": _feature_learning(study, section["feature_learning"]),
            "windows": [(count(w["from"]), count(w["to"]), number(w["exponent"])) for w in section["windows"]],
            "exponent": provenance(section["exponent"]) if section["exponent"] else "here too few to read it",
            "dimension": (number(dimension["value"]), count(dimension["of"]), setting(dimension["delta"])),
            "fit": {k: number(v) for k, v in section["risk"]["fit"].items()} if section["risk"] else None,
            "rows": _rows(section["risk"]),
            "metric": section["risk"]["metric"] if section["risk"] else "",
            "unit": section["risk"]["unit"] if section["risk"] else "",
        },
    )


def _now(risk: dict[str, Any]) -> dict[str, Any]:
    """The measurement with the most data."""
    return max(risk["measured"], key=lambda p: p["n"])


def _ahead(risk: dict[str, Any] | None) -> dict[str, Any] | None:
    """The extrapolation to twice the data, or to the most that there is."""
    if not risk or not risk["extrapolation"]:
        return None
    now = _now(risk)["n"]
    further = [p for p in risk["extrapolation"] if p["n"] > now]
    return min(further, key=lambda p: abs(p["n"] - 2 * now)) if further else None


def _gain(risk: dict[str, Any] | None) -> float | None:
    """By what share of itself the risk is predicted to fall."""
    ahead = _ahead(risk)
    if ahead is None or risk is None or _now(risk)["risk"]["value"] <= 0:
        return None
    return 1 - ahead["risk"]["value"] / _now(risk)["risk"]["value"]


def _certain(risk: dict[str, Any] | None) -> bool:
    """Whether the interval of the prediction leaves out that nothing changes."""
    ahead = _ahead(risk)
    if risk is None or ahead is None or ahead["risk"]["interval"] is None:
        return False
    low, high = ahead["risk"]["interval"]
    return not low <= _now(risk)["risk"]["value"] <= high


def _answer(section: dict[str, Any], features: str) -> str:
    dimension, exponent = section["effective_dimension"], section["exponent"]
    text = (
        f"Its spectrum {_fall(section, exponent)}, {number(dimension['value'])} effective dimensions "
        f"of {count(dimension['of'])} at δ = {setting(dimension['delta'])}"
    )
    risk = section["risk"]
    if risk is None:
        return f"{text}; the value of more data was not measured."
    now = _now(risk)
    if _ahead(risk) is None:
        measured = f"{about(now['risk'], _with_unit(risk))} with {count(now['n'])} samples"
        return f"{text}; the {risk['metric']} is {measured}{features}."
    return f"{text}; given these features, the {risk['metric']} would go {_change(risk)}{features}."


def _fall(section: dict[str, Any], exponent: dict[str, Any] | None) -> str:
    """How the spectrum falls, or that it is too short to tell."""
    if exponent is None:
        rank = max(section["spectrum"]["ranks"], default=0)
        return f"has {plural(rank, 'eigenvalue')} above rounding, too few to read how it falls"
    bounds = interval(exponent)
    return f"falls like rank to the −{number(exponent['value'])}{f' ({bounds} over fitting windows)' if bounds else ''}"


def _caption(study: dict[str, Any], section: dict[str, Any]) -> str:
    """What of the spectrum was fitted."""
    if section["exponent"] is None:
        return "Only eigenvalues above rounding are drawn."
    first = "outputs" if study["task"] == "regression" else "classes"
    return f"The first ranks hold the {first} and the last half is short of samples: neither is fitted."


def _change(risk: dict[str, Any]) -> str:
    """From what with how many samples to what with how many, the unit once."""
    now, ahead = _now(risk), _ahead(risk)
    form = percent if risk["unit"] == "%" else number
    unit = f", in {risk['unit']}" if risk["unit"] not in ("", "%") else ""
    later = f" to {about(ahead['risk'], form)} with {count(ahead['n'])}" if ahead else ""
    return f"from {form(now['risk']['value'])} with {count(now['n'])} samples{later}{unit}"


def _advice(risk: dict[str, Any] | None) -> str:
    ahead, gain = _ahead(risk), _gain(risk)
    if risk is None or ahead is None or gain is None:
        return "Measure the curve on subsets before you pay for more labels."
    if ahead["risk"]["interval"] is None:
        return "The prediction has no interval: do not decide on it alone."
    if not _certain(risk):
        return "The interval includes no change at all: these measurements cannot promise anything from more data."
    if gain >= 0.1:
        better = rough_percent(gain)
        return f"More data of the same kind should help: about {better} less risk at {count(ahead['n'])} samples."
    if gain > 0:
        return (
            f"More data of the same kind would help little (about {rough_percent(gain)} less risk): "
            "look at the labels or the model first."
        )
    return "More data of the same kind is not predicted to help: look at the labels or the model first."


def _finding(section: dict[str, Any]) -> str:
    ahead, gain = _ahead(section["risk"]), _gain(section["risk"])
    if ahead is None or gain is None:
        return f"{number(section['effective_dimension']['value'])} effective dimensions"
    if not _certain(section["risk"]):
        now = count(_now(section["risk"])["n"])
        return f"whether {count(ahead['n'])} samples would do better than {now} cannot be told"
    way = "lower" if gain >= 0 else "raise"
    return f"more data would {way} the {section['risk']['metric']} {_change(section['risk'])}"


def _with_unit(risk: dict[str, Any]) -> Any:
    if risk["unit"] == "%":
        return percent
    return lambda v: f"{number(v)}{BLANK}{risk['unit']}" if risk["unit"] else number(v)


def _spectrum_chart(section: dict[str, Any]) -> Markup | None:
    ranks, values = section["spectrum"]["ranks"], section["spectrum"]["eigenvalues"]
    kept = [(r, v) for r, v in zip(ranks, values, strict=True) if v > 1e-6 * max(values)]
    if len(kept) < 3:
        return None
    ranks, values = [r for r, _ in kept], [v for _, v in kept]
    chart = Chart(
        Log(1, max(ranks)),
        Log(min(values), max(values)),
        "Eigenvalues of the Gram matrix against their rank, on log axes",
        "rank",
        "eigenvalue, in units of the mean diagonal",
    )
    chart.line(ranks, values, "method")
    exponent = section["exponent"] and section["exponent"]["value"]
    if exponent is not None and section["windows"]:
        first = min(w["from"] for w in section["windows"])
        last = min(max(w["to"] for w in section["windows"]), max(ranks))
        middle = (first * last) ** 0.5
        anchor = min(kept, key=lambda rv: abs(rv[0] - middle))
        if exponent > 0:  # only as far as the frame goes: beyond it the line would be bent
            reach = [anchor[0] * (anchor[1] / v) ** (1 / exponent) for v in (max(values), min(values))]
            first, last = max(first, reach[0]), min(last, reach[1])
        power = [anchor[1] * (r / anchor[0]) ** -exponent for r in (first, last)]
        chart.line([first, last], power, "fit")
    for r, v in kept[:: max(1, len(kept) // 14)]:
        chart.point(r, v, "method small", f"rank {count(r)}: {number(v)}")
    entries = [("measured", "method", "circle")]
    if exponent is not None and section["windows"]:
        entries.append((f"power law, exponent {number(exponent)}, where it was fitted", "fit", "line"))
    return chart.render() + legend(*entries)


def _risk_chart(risk: dict[str, Any] | None) -> Markup | None:
    if risk is None:
        return None
    form, measured, ahead = _with_unit(risk), risk["measured"], risk["extrapolation"]
    entries = [("measured on subsets", "method", "circle")]
    every = [p["n"] for p in [*measured, *ahead, *risk["eigenframework"]]]
    bounds = [b for p in [*measured, *ahead] for b in (p["risk"]["interval"] or [p["risk"]["value"]])] + [
        p["risk"]["value"] for p in risk["eigenframework"]
    ]
    chart = Chart(
        Log(min(every), max(every), count, _sizes(min(every), max(every))),
        Linear(*padded(bounds), percent if risk["unit"] == "%" else setting),
        f"{risk['metric']} against the number of training samples",
        "training samples",
        f"{risk['metric']}{f' ({unit})' if (unit := risk['unit']) and unit != '%' else ''}",
    )
    if ahead:
        last = _now(risk)
        joined = [last, *sorted((p for p in ahead if p["n"] > last["n"]), key=lambda p: p["n"])]
        xs = [p["n"] for p in joined]
        if all(p["risk"]["interval"] for p in joined):
            chart.band(xs, [p["risk"]["interval"] for p in joined], "method")
        chart.line(xs, [p["risk"]["value"] for p in joined], "method ahead")
        for p in joined[1:]:
            tip = f"predicted for {count(p['n'])} samples: {about(p['risk'], form)}"
            chart.point(p["n"], p["risk"]["value"], "method hollow", tip, "circle")
        entries.append(("predicted by a + b n⁻ᶜ, bootstrap interval", "method", "band"))
    if risk["eigenframework"]:
        xs, ys = [p["n"] for p in risk["eigenframework"]], [p["risk"]["value"] for p in risk["eigenframework"]]
        chart.line(xs, ys, "baseline-1")
        for p in risk["eigenframework"]:
            tip = f"eigenframework, {count(p['n'])} samples: {about(p['risk'], form)}"
            chart.point(p["n"], p["risk"]["value"], "baseline-1", tip, "square")
        entries.append(("eigenframework, set to meet the last measurement", "baseline-1", "square"))
    chart.line([p["n"] for p in measured], [p["risk"]["value"] for p in measured], "method")
    for p in measured:
        if p["risk"]["interval"]:
            chart.whisker(p["n"], p["risk"]["interval"], "method")
        chart.point(p["n"], p["risk"]["value"], "method", f"{count(p['n'])} samples: {about(p['risk'], form)}")
    return chart.render() + legend(*entries)


def _sizes(low: Number, high: Number) -> tuple[Number, ...]:
    """Round numbers of samples to write at the axis."""
    steps = [m * 10.0**e for e in range(9) for m in (1, 2, 5)]
    kept = [s for s in steps if low * 0.95 <= s <= high * 1.05]
    return tuple(kept[:: max(1, round(len(kept) / 6))])


def _rows(risk: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Measured and predicted risks as a table: samples, risk, kind."""
    if risk is None:
        return []
    form = percent if risk["unit"] == "%" else number  # the unit stands in the table's head
    return [
        (count(p["n"]), about(p["risk"], form), kind)
        for kind, rows in (
            ("measured", risk["measured"]),
            ("predicted", risk["extrapolation"]),
            ("eigenframework", [p for p in risk["eigenframework"] if p["n"] > _now(risk)["n"]]),
        )
        for p in rows
    ]


def _feature_learning(study: dict[str, Any], learning: dict[str, Any] | None) -> str:
    if learning is None:
        return ""
    form = metric(study)
    difference = number if study["task"] == "regression" else points
    bounds = interval(learning["difference"], difference)
    text = (
        f"Feature learning: the same kernel model reaches {metric_name(study)} {form(learning['trained']['value'])} on "
        f"the trained network's features and {form(learning['initial']['value'])} on the initial network's, "
        f"a difference of {difference(learning['difference']['value'])}"
    )
    return f"{text} ({bounds})." if bounds else f"{text} ({learning['difference']['how']})."
