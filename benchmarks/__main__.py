"""``python -m benchmarks [tables …]``: prints the tables and renews them in ``benchmarks/results.json``."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import (
    linearised,
    memory,
    peers,
    products,
    projections,
    random_features,
    selection,
    sketches,
    tangent_grams,
)
from benchmarks.harness import Conditions, Row

TABLES = {
    "grams": lambda c: [*tangent_grams.rows(c), tangent_grams.contraction(c)],
    "sketches": sketches.rows,
    "linearised": linearised.rows,
    "memory": memory.rows,
    "products": products.rows,
    "projections": projections.rows,
    "random_features": random_features.rows,
    "selection": selection.rows,
}


def show(console: Console, name: str, rows: list[Row]) -> None:
    """Print one table."""
    table = Table(title=name)
    for heading in ("case", "seconds", "ratio", "floor", "notes"):
        table.add_column(heading)
    for row in rows:
        table.add_row(
            row.name,
            "  ".join(f"{rival} {seconds:.4f}" for rival, seconds in row.seconds.items()),
            "" if row.ratio is None else f"{row.ratio:.2f}",
            "" if row.floor is None else f"{row.floor:g} {'✓' if row.passes else '✗'}",
            "  ".join(f"{key} {value}" for key, value in row.notes.items() if value is not None),
        )
    console.print(table)


def main(names: list[str]) -> int:
    """Run the named tables, or all; 1 if a floor is missed."""
    unknown = set(names) - set(TABLES)
    if unknown:
        print(f"unknown tables {sorted(unknown)}; there are {', '.join(TABLES)}")
        return 2
    console = Console(width=150)
    conditions = Conditions.now()
    console.print(
        f"load {conditions.load} on {conditions.cores} cores: {conditions.clock}, {conditions.threads} thread(s); "
        f"torch {torch.__version__}. Not installed: {', '.join(peers.missing()) or 'none'}"
    )
    header = {"load": conditions.load, "cores": conditions.cores, "threads": conditions.threads}
    header |= {"clock": conditions.clock, "torch": torch.__version__, "machine": platform.machine()}
    path = Path(__file__).with_name("results.json")
    results = json.loads(path.read_text()) if path.exists() else {}
    missed = False
    for name in names or list(TABLES):
        rows = TABLES[name](conditions)
        show(console, name, rows)
        results[name] = {"conditions": header, "rows": [row.as_json() for row in rows]}
        missed |= any(row.passes is False for row in rows)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
