"""Draw report.html from study.json."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tangrams.store import replacing
from tangrams.study.report import sections
from tangrams.study.report.sections import glance
from tangrams.study.report.sections.glance import Finding
from tangrams.study.report.tangram import tans
from tangrams.study.report.validate import validate
from tangrams.study.report.words import about, metric, percent, sample_name, setting

SHORT = {
    "explanations": "Why",
    "labels": "Labels",
    "redundancy": "Redundant",
    "richness": "Rich",
    "fragility": "Fragile",
    "layers": "Layers",
    "next": "Next",
}
BUDGET = 3_000_000  # bytes of explanations; the rest of a report takes less than a megabyte
_UNSAFE = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


def render(study: dict[str, Any] | str | os.PathLike[str], html_path: str | os.PathLike[str]) -> Path:
    """Write the report of a study as one self-contained HTML file.

    The file needs no network, no other file, and is drawn from ``study`` alone: the same study gives the same bytes.

    Args:
        study: what a study measured, or the path of its study.json.
        html_path: where to write; folders are made, an old file is replaced in one step.

    Returns:
        The path written.

    A study that is no JSON or does not fit ``study/schema.json`` is refused as in :func:`load`.
    """
    study = load(study)
    target = Path(html_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as partial:
        partial.write_text(to_html(study), encoding="utf-8")
    return target


def findings(study: dict[str, Any] | str | os.PathLike[str], most: int = 3) -> list[Finding]:
    """What stands out most in a study, first things first.

    Args:
        study: what a study measured, or the path of its study.json.
        most: how many to name.
    """
    return glance.findings(sections.views(load(study)), most)


def load(source: dict[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """A study from memory or from its file, checked against its schema.

    Raises:
        ValueError: if it is not JSON or does not fit the schema.
    """
    if isinstance(source, dict):
        study = source
    else:
        path = Path(source)
        try:
            study = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not JSON ({error}): give the study.json that a study has written") from error
    validate(study)
    for where, first, second in _paired(study):
        if len(first) != len(second):
            raise ValueError(
                f"study.json does not fit its schema: {where} hold {len(first)} and {len(second)} numbers, "
                "which should be pairs"
            )
    return study


def _paired(study: dict[str, Any]) -> list[tuple[str, list[Any], list[Any]]]:
    """Lists that belong together number by number, which a JSON schema cannot say."""
    pairs = []
    if study["richness"]["state"] == "measured":
        spectrum = study["richness"]["spectrum"]
        pairs.append(("study.richness.spectrum's ranks and eigenvalues", spectrum["ranks"], spectrum["eigenvalues"]))
    if study["labels"]["state"] == "measured" and study["labels"]["planted"]:
        for curve in study["labels"]["planted"]["curves"]:
            where = f"the recall and precision of study.labels' {curve['name']!r}"
            pairs.append((where, curve["recall"], curve["precision"]))
    return pairs


def to_html(study: dict[str, Any]) -> str:
    """The report of a valid study as a string."""
    embedded = _for_script(study)
    views = sections.views(study)
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            study=study,
            views=views,
            short=SHORT,
            tans=tans(),
            cards=glance.cards(study),
            findings=glance.findings(views),
            facts=glance.facts(study),
            planted=glance.planted(study),
            surrogates=_surrogates(study),
            again=glance.again(study),
            version=study["again"]["versions"].get("tangrams", ""),
            css=Markup(_asset("report.css")),
            js=Markup(script),
            digest=digest,
            explained={row["id"] for row in embedded["explanations"]},
            data=Markup(_embedded(embedded)),
        )
    )


def _surrogates(study: dict[str, Any]) -> dict[str, str] | None:
    """Fidelity of the clean-up model in words; None where it was not measured."""
    if study["surrogates"]["state"] == "absent":
        return None
    cleanup = study["surrogates"]["cleanup"]
    form = percent if study["task"] == "classification" else metric(study)
    return {
        "delta": setting(cleanup["delta"]),
        "agreement": about(cleanup["agreement"], form),
        "kendall": about(cleanup["kendall"]) if cleanup["kendall"] else "",
        "logistic": _logistic(study["surrogates"].get("cleanup_logistic"), form),
    }


def _logistic(fit: dict[str, Any] | None, form: Callable[[float], str]) -> str:
    if fit is None:
        return ""
    text = f"C = {setting(fit['C'])}: the network's class on {about(fit['agreement'], form)}"
    if fit["kendall"]:
        text += f", Kendall τ {about(fit['kendall'])}"
    return f"{text}, accuracy {about(fit['accuracy'], form)}"


def _for_script(study: dict[str, Any]) -> dict[str, Any]:
    """What the script needs: the explanations, the samples they name, and the list of suspects."""
    explanations, labels = study["explanations"], study["labels"]
    rows = _within(study, explanations["samples"]) if explanations["state"] == "measured" else []
    suspects = labels["suspects"] if labels["state"] == "measured" else []
    named = {row["id"] for row in rows}
    named |= {w["id"] for row in rows for side in ("supporters", "opposers") for w in row[side]}
    return {
        "classes": [c if c.strip() else f"class {i}" for i, c in enumerate(study["data"]["classes"])],
        "regression": study["task"] == "regression",
        "explanations": [_rounded(row) for row in rows],
        "samples": {key: study["samples"][key] for key in sorted(named) if key in study["samples"]},
        "suspected": [row["id"] for row in suspects[: labels["count"]]] if suspects else [],
        "csv": [
            {
                "id": row["id"],
                "name": sample_name(study, row["id"]),
                "given": row["given"],
                "suggested": row["suggested"],
                "score": row["score"],
                "neighbours": row["neighbours"],
            }
            for row in suspects
        ],
    }


def _within(study: dict[str, Any], rows: list[dict[str, Any]], budget: int = BUDGET) -> list[dict[str, Any]]:
    """As many explanations as fit the file with the samples that they name: three wrong predictions to a right one."""
    kept: list[dict[str, Any]] = []
    named: set[str] = set()
    size = 0
    for row in _three_to_one(rows):
        new = {row["id"], *(w["id"] for side in ("supporters", "opposers") for w in row[side])} - named
        size += sum(len(str(study["samples"].get(identifier, ""))) for identifier in new) + 1200
        if size > budget and kept:
            break
        named |= new
        kept.append(row)
    return kept


def _three_to_one(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Three wrong predictions, a right one, and so on; what is left of either at the end."""
    right = [row for row in rows if row["predicted"] == row["label"]]
    wrong = [row for row in rows if row["predicted"] != row["label"]]
    place = {row["id"]: i for i, row in enumerate(wrong)} | {row["id"]: 3 * i + 2.5 for i, row in enumerate(right)}
    return sorted(rows, key=lambda row: place[row["id"]])


def _rounded(value: Any) -> Any:
    """Floats to seven figures: below what a reader or the sum of the parts can tell."""
    if isinstance(value, float):
        return float(f"{value:.7g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def _embedded(data: Any) -> str:
    """JSON that cannot leave its script element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_UNSAFE)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tangrams.study.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["cell"] = _cell
    return environment


def _cell(value: float | int | str | None) -> str:
    """One value of a tabular sample."""
    return "–" if value is None else value if isinstance(value, str) else setting(value)


@cache
def _asset(name: str) -> str:
    return (files("tangrams.study.report") / "assets" / name).read_text(encoding="utf-8")
