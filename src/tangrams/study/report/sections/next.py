"""Section 8: what should be labelled next?"""

from __future__ import annotations

from typing import Any

from tangrams.study.report.sections.base import View, absent
from tangrams.study.report.words import about, count, label, listing, number, plural, sample_name

KEY, HEADING = "next", "What should be labelled next?"
WHY = {
    "uncertain": "the network is unsure",
    "far": "unlike anything labelled",
    "both": "unsure, and unlike anything labelled",
    "cluster": "stands for the largest group that is not covered",
}


def view(study: dict[str, Any]) -> View:
    """The section, from its numbers."""
    section = study[KEY]
    if section["state"] == "absent":
        return absent(KEY, HEADING, section)
    batch = plural(len(section["batch"]), "sample")
    of = plural(study["data"]["pool"], "sample")
    spread = section["spread"]
    beside = listing([f"{b['name']} {about(b['value'])}" for b in spread["baselines"]])
    return View(
        KEY,
        HEADING,
        f"These {count(len(section['batch']))} of the {of} in the pool: the two nearest of them are "
        f"{about(spread['value'])} apart in the kernel ({beside}).",
        "Label them in this order; after a batch, train and study again, since the features change.",
        finding=f"{batch} of the pool to label next",
        weight=0.45,
        figures={
            "rows": [_row(study, i, r) for i, r in enumerate(section["batch"], 1)],
            "spread": spread["value"]["how"],
            "method": section["method"],
        },
    )


def _row(study: dict[str, Any], rank: int, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "rank": rank,
        "id": row["id"],
        "name": sample_name(study, row["id"]),
        "sample": study["samples"].get(row["id"], {}),
        "predicted": label(study, row["predicted"]),
        "uncertainty": number(row["uncertainty"]),
        "distance": number(row["distance"]),
        "why": WHY[row["why"]],
    }
