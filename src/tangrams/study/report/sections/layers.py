"""Section 7: which layers look unhealthy?"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.svg import Log, dot_in_band
from tangrams.study.report.words import count, listing, number, percent, plural

KEY, HEADING = "layers", "Which layers look unhealthy?"
NORMS, EXPONENTS = Log(0.05, 60.0), Log(0.15, 2.5)


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, HEADING, section)
    rows = section["layers"]
    flagged = [r for r in rows if r["flags"]]
    return View(
        KEY,
        HEADING,
        _answer(rows, flagged),
        _advice(rows, flagged, regression=study["task"] == "regression"),
        finding=_finding(flagged),
        weight=_weight(rows),
        quiet=not flagged,
        figures={"rows": [_row(r) for r in rows], "samples": count(section["samples"])},
    )


def layer_name(row: dict[str, Any]) -> str:
    """Kind and place: in a Sequential the place alone would read as a number."""
    return f"{row['kind']} {row['name']}".strip()


def _kinds(row: dict[str, Any]) -> set[tuple[str, str]]:
    return {(flag["measure"], flag["direction"]) for flag in row["flags"]}


def _weight(rows: list[dict[str, Any]]) -> float:
    """How much it stands out: by the share of flagged layers, little where only a tail is like a fresh layer's."""
    strong = [row for row in rows if _kinds(row) - {("exponent", "high")}]
    if strong:
        return min(1.0, 0.5 + 0.5 * len(strong) / len(rows))
    return 0.3 if any(row["flags"] for row in rows) else 0.05


def _answer(rows: list[dict[str, Any]], flagged: list[dict[str, Any]]) -> str:
    layers = plural(len(rows), "layer with weights", "layers with weights")
    if not flagged:
        return f"Nothing unusual: {layers}, and every measure lies where those of healthy layers do."
    verb = "looks" if len(flagged) == 1 else "look"
    most = 4 if len(flagged) <= 4 else 2
    reasons = [f"{layer_name(r)} ({_reasons(r)})" for r in flagged[:most]]
    more = f"; {count(len(flagged) - most)} more below" if len(flagged) > most else ""
    return f"{count(len(flagged))} of {layers} {verb} unlike a healthy one: {listing(reasons)}{more}."


def _reasons(row: dict[str, Any]) -> str:
    texts = []
    for flag in row["flags"]:
        if flag["measure"] == "dead" and row["dead"]:
            texts.append(f"{percent(row['dead']['share'])} of its units silent")
        elif flag["measure"] == "norm" and row["norm"]:
            little = ", little for a trained one" if flag["direction"] == "low" else ""
            texts.append(f"spectral norm {number(row['norm']['ratio'])} times a fresh layer's{little}")
        elif flag["measure"] == "exponent" and row["exponent"]:
            heavy = "a heavy tail" if flag["direction"] == "low" else "hardly changed for a trained one"
            texts.append(f"tail exponent {number(row['exponent']['ratio'])} times a fresh layer's, {heavy}")
    return "; ".join(texts)


def _advice(rows: list[dict[str, Any]], flagged: list[dict[str, Any]], *, regression: bool) -> str:
    if not flagged:
        return "Nothing to do."
    steps = []
    each = [_kinds(row) for row in flagged]
    kinds = set().union(*each)
    if ("norm", "high") in kinds:
        scale = ", and the scale of the targets, which the last layers have to reach" if regression else ""
        steps.append(f"a large norm: check its learning rate and its initial scale{scale}")
    if ("norm", "low") in kinds:
        steps.append("a spectrum like a fresh layer's: check that it was trained at all")
    if any(("exponent", "high") in row and ("norm", "low") not in row for row in each):
        steps.append("a tail like a fresh layer's under another norm: few samples or short training leave it so")
    if ("exponent", "low") in kinds:
        steps.append("a very heavy tail: check for a few directions that dominate")
    if ("dead", "high") in kinds:
        steps.append("silent units: a narrower layer may do as well")
    advice = "; ".join(steps)
    advice = f"{advice[:1].upper()}{advice[1:]}"
    most = ""
    if 2 * len(flagged) > len(rows) > 2:
        most = " So many at once may also mean that the healthy band, drawn from small networks, does not fit this one."
    return f"Unusual is not broken: if the network does what it should, note it and go on. {advice}.{most}"


def _finding(flagged: list[dict[str, Any]]) -> str:
    if not flagged:
        return "no layer looks unusual"
    first = flagged[0]
    text = f"{plural(len(flagged), 'layer looks', 'layers look')} unlike a healthy one"
    return f"{text}: {layer_name(first)} ({_reasons(first)}){' and others' if len(flagged) > 1 else ''}"


def _row(row: dict[str, Any]) -> dict[str, Any]:
    flags = {f["measure"] for f in row["flags"]}
    return {
        "name": row["name"] or "(the model itself)",
        "kind": row["kind"],
        "shape": " × ".join(count(s) for s in row["shape"]),
        "parameters": count(row["parameters"]),
        "flagged": bool(flags),
        "norm": _strip(row["norm"], NORMS, "norm" in flags, "spectral norm"),
        "exponent": _strip(row["exponent"], EXPONENTS, "exponent" in flags, "tail exponent"),
        "dead": _share(row["dead"]["share"], "dead" in flags, row["dead"]["limit"]) if row["dead"] else None,
        "dead_units": count(row["dead"]["units"]) if row["dead"] else "",
        "share": _share(row["tangent_share"], False, None) if row["tangent_share"] is not None else None,
    }


def _strip(measure: dict[str, Any] | None, scale: Log, unusual: bool, name: str) -> dict[str, Any] | None:
    if measure is None:
        return None
    low, high = measure["band"]
    tip = (
        f"{name} {number(measure['value'])}, {number(measure['ratio'])} times the {number(measure['fresh'])} "
        f"of a fresh layer; healthy: {number(low)} to {number(high)} times"
    )
    drawn: Markup = dot_in_band(measure["ratio"], (low, high), scale, unusual=unusual, tip=tip)
    return {"svg": drawn, "text": f"{number(measure['ratio'])} ×", "unusual": unusual}


def _share(share: float, unusual: bool, limit: float | None) -> dict[str, Any]:
    return {
        "width": f"{100 * share:.1f}",
        "text": percent(share),
        "unusual": unusual,
        "limit": None if limit is None else f"{100 * limit:.1f}",
    }
