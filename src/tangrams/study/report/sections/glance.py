"""Section 1: the cards and the findings, and section 9: how to get these numbers again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tangrams.study.report.sections.base import View
from tangrams.study.report.sections.labels import noun, precision_at, told
from tangrams.study.report.sections.layers import layer_name
from tangrams.study.report.sections.redundancy import within
from tangrams.study.report.words import (
    count,
    duration,
    memory,
    metric,
    metric_name,
    number,
    percent,
    plural,
    provenance,
    sample_name,
    setting,
    share,
    value,
)


@dataclass(frozen=True)
class Card:
    """One number at the top.

    Attributes:
        name: what it is.
        value: the number with its unit.
        note: its uncertainty and what stands beside it.
        link: the section that explains it.
    """

    name: str
    value: str
    note: str
    link: str


@dataclass(frozen=True)
class Finding:
    """One of the findings that stand out.

    Attributes:
        section: the key of its section in study.json, and its anchor in the report.
        text: a clause with the numbers.
    """

    section: str
    text: str


def cards(study: dict[str, Any]) -> list[Card]:
    """The cards, those without numbers left out."""
    form, name = metric(study), metric_name(study)
    network = study["network"]
    train = f"{value(network['train_accuracy'], form)} on the training data with the {noun(study)}s as given"
    made = [
        Card(
            f"Network: test {name}",
            value(network["accuracy"], form),
            f"{provenance(network['accuracy'], form)}; {train}",
            "explanations",
        )
    ]
    if study["surrogates"]["state"] == "measured":
        made += _surrogate_cards(study, form, name)
    if study["labels"]["state"] == "measured":
        made.append(_labels_card(study["labels"], noun(study)))
    if study["redundancy"]["state"] == "measured":
        keep = study["redundancy"]["keep"]
        note = f"within {within(study, study['redundancy'])}; {provenance(keep, share)}"
        part = f"{share(keep['value'])} of the data" if keep["value"] < 1 else "all of the data"
        made.append(Card("Enough for the clean-up model", part, note, "redundancy"))
    if study["fragility"]["state"] == "measured" and study["fragility"]["closest"]:
        nearest = study["fragility"]["closest"][0]
        note = (
            f"{study['fragility']['unit']}, {sample_name(study, nearest['id'])}; "
            f"median {number(study['fragility']['median']['value'])}"
        )
        made.append(Card("Closest decision boundary", number(nearest["distance"]), note, "fragility"))
    if study["layers"]["state"] == "measured":
        rows = study["layers"]["layers"]
        flagged = [layer_name(r) for r in rows if r["flags"]]
        note = ", ".join(flagged[:3]) + (" …" if len(flagged) > 3 else "") if flagged else "none stands out"
        made.append(Card("Layers unlike a healthy one", f"{count(len(flagged))} of {count(len(rows))}", note, "layers"))
    return made


def _surrogate_cards(study: dict[str, Any], form: Any, name: str) -> list[Card]:
    surrogates = study["surrogates"]
    mimic = surrogates["mimic"]
    best = surrogates.get("tuned_cleanup", surrogates["cleanup"])
    agreement = percent if study["task"] == "classification" else number
    tau = f"; Kendall τ {number(mimic['kendall']['value'], 2)}" if mimic["kendall"] else ""
    quantity = "agrees with the network" if study["task"] == "classification" else "correlation with the network"
    return [
        Card(
            f"Clean-up model: test {name}",
            value(best["accuracy"], form),
            f"{provenance(best['accuracy'], form)}; fitted to the labels, δ = {setting(best['delta'])}",
            "labels",
        ),
        Card(
            f"Mimic: {quantity}",
            value(mimic["agreement"], agreement),
            f"{provenance(mimic['agreement'], agreement)}{tau}",
            "explanations",
        ),
    ]


def _labels_card(section: dict[str, Any], name: str) -> Card:
    at = precision_at(section)
    note = f"of {plural(section['of'], f'training {name}')}"
    if section["count"] and at and not told(at):
        note = f"how many are real cannot be told ({provenance(at, percent)}); {note}"
    elif section["count"] and at:
        note = f"about {value(at, percent)} real ({provenance(at, percent)}); {note}"
    elif section["count"]:
        note = f"how many are real is not estimated; {note}"
    return Card(f"Suspected {name} errors", count(section["count"]), note, "labels")


def findings(views: list[View], most: int = 3) -> list[Finding]:
    """The measured sections' findings, those that stand out most first."""
    told = sorted((v for v in views if v.finding and not v.absent), key=lambda v: -v.weight)
    return [Finding(v.key, f"{v.finding[:1].upper()}{v.finding[1:]}.") for v in told[:most]]


def facts(study: dict[str, Any]) -> list[str]:
    """The line below the title."""
    data, cost = study["data"], study["cost"]
    noun_of_test = "test sample" if data["test"] == 1 else "test samples"
    parts = [
        plural(study["model"]["parameters"], "parameter"),
        f"{_studied(data, 'train')} training and {_studied(data, 'test')} {noun_of_test}",
    ]
    if data["pool"]:
        parts.append(f"{_studied(data, 'pool')} unlabelled")
    if data["classes"]:
        parts.append(plural(len(data["classes"]), "class", "classes"))
    elif data["target"] not in (None, "target"):  # a name that says nothing
        parts.append(f"target: {data['target']}")
    parts.append(
        f"studied in {duration(cost['seconds'])} with {memory(cost['memory_mb'])} on {plural(cost['cores'], 'core')}"
    )
    return parts


def _studied(data: dict[str, Any], split: str) -> str:
    """How many samples of a split were studied, and of how many where the others were left out."""
    total = data.get("totals", {}).get(split, data[split])
    return count(data[split]) if total == data[split] else f"{count(data[split])} of {count(total)}"


def planted(study: dict[str, Any]) -> str:
    """What was planted on purpose, said at the top so that nobody takes it for a discovery."""
    mistakes = study["data"]["planted"]
    if not mistakes:
        return ""
    kind = f"{mistakes['kind']} " if mistakes["kind"] else ""
    parts = [plural(mistakes["label_errors"], f"{kind}label error")]
    if mistakes["exact_duplicates"]:
        parts.append(plural(mistakes["exact_duplicates"], "exact repeat"))
    if mistakes["near_duplicates"]:
        parts.append(plural(mistakes["near_duplicates"], "near repeat"))
    return f"Planted in the training data on purpose, so that finding them can be measured: {', '.join(parts)}."


def _link(path: str | None) -> str | None:
    """A path as a link, unless it names a scheme: only files beside the report are linked."""
    return path if path and ":" not in path and not path.lstrip().startswith("//") else None


def again(study: dict[str, Any]) -> dict[str, Any]:
    """Section 9, as tables."""
    section = study["again"]
    total = sum(step["seconds"] for step in section["steps"])
    longest = max((step["seconds"] for step in section["steps"]), default=0.0)
    return {
        "answer": f"Run the command below with these versions and seeds; the steps took {duration(total)}, "
        f"the whole study {duration(study['cost']['seconds'])} on {plural(section['threads'], 'thread')}.",
        "command": section["command"],
        "tables": [
            ("Versions", sorted(section["versions"].items())),
            ("Seeds", sorted((k, str(v)) for k, v in section["seeds"].items())),
            ("Fingerprints", sorted(section["fingerprints"].items())),
        ],
        "steps": [
            (s["name"], duration(s["seconds"]), f"{100 * s['seconds'] / longest:.1f}" if longest else "0")
            for s in section["steps"]
        ],
        "platform": section["platform"],
        "created": study["created"],
        "study": _link(section["study"]) or "#again",
        "store": _link(section["store"]),
        "store_text": section["store"],
        "source": study["model"]["source"],
    }
