"""``python -m tangrams.study.check``: measure what the study must reach on its default, and print it as a table."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import tangrams
from tangrams.store import replacing
from tangrams.study.acceptance import boundary, cost, labels, layers, other_data, redundancy, retraining, surrogates
from tangrams.study.acceptance.base import Bench, Criterion
from tangrams.study.progress import Steps, usable_cores

GROUPS: dict[str, Callable[[Bench], list[Criterion]]] = {
    "labels": labels.measure_uniform,
    "confusable": labels.measure_confusable,
    "surrogates": surrogates.measure_fidelity,
    "explanations": surrogates.measure_explanations,
    "datamodeling": retraining.measure_datamodeling,
    "removal": retraining.measure_removal,
    "redundancy": redundancy.measure_redundancy,
    "boundary": boundary.measure_boundary,
    "layers": layers.measure_layers,
    "cost": cost.measure_cost,
    "mnist": other_data.measure_mnist,
    "cifar10": other_data.measure_cifar10,
}
"""Subject → what measures it."""


def check(
    groups: Sequence[str] | None = None,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    evidence: str | os.PathLike[str] | None = "evidence/study-check.json",
    console: Console | None = None,
) -> bool:
    """Measure the criteria, print them, and keep the numbers.

    Args:
        groups: names in :data:`GROUPS`; None: all.
        seeds: of the default.
        evidence: JSON file to write; subjects measured earlier and not now stay in it. None: nothing is kept.
        console: where the table goes.

    Returns:
        Whether every requirement is met.

    Raises:
        ValueError: on an unknown name.
    """
    console = Console() if console is None else console
    if not console.is_terminal:
        console.width = 160
    unknown = set(groups or ()) - set(GROUPS)
    if unknown:
        raise ValueError(f"no criteria named {', '.join(sorted(unknown))}: choose from {', '.join(GROUPS)}")
    steps = Steps()
    bench = Bench(seeds, steps)
    criteria: list[Criterion] = []
    with steps.live():
        for name in groups or GROUPS:
            found = GROUPS[name](bench)
            criteria += found
            if evidence is not None:
                _keep(Path(evidence), name, found, seeds)
    console.print(_table(criteria))
    judged = [criterion for criterion in criteria if criterion.passed is not None]
    met = sum(bool(criterion.passed) for criterion in judged)
    console.print(f"{met} of {len(judged)} requirements met, {steps.total:.0f} s", highlight=False)
    return met == len(judged)


def _table(criteria: Sequence[Criterion]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("subject", "criterion", "measured", "wanted", "", "beside it"):
        table.add_column(heading, justify="right" if heading in ("measured", "wanted") else "left", overflow="fold")
    last = ""
    for row in criteria:
        verdict = {True: "[green]pass[/]", False: "[red]FAIL[/]", None: ""}[row.passed]
        figures = " ".join(f"{value:.3g}" if abs(value) < 1e-3 else f"{value:.3f}" for value in row.values)
        table.add_row(row.group if row.group != last else "", row.name, figures, row.wanted, verdict, row.note)
        last = row.group
    return table


def _keep(path: Path, name: str, criteria: Sequence[Criterion], seeds: Sequence[int]) -> None:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    record[name] = {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "seeds": list(seeds),
        "versions": {"tangrams": tangrams.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 1),
        "criteria": [criterion.to_json() for criterion in criteria],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    ordered = {group: record[group] for group in GROUPS if group in record}
    with replacing(path) as partial:
        partial.write_text(json.dumps(ordered, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line; exit code 1 where a requirement is not met."""
    parser = argparse.ArgumentParser(prog="python -m tangrams.study.check", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), metavar="SUBJECT", help=", ".join(GROUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--evidence", default="evidence/study-check.json")
    arguments = parser.parse_args()
    raise SystemExit(0 if check(arguments.only, seeds=arguments.seeds, evidence=arguments.evidence) else 1)


if __name__ == "__main__":
    main()
