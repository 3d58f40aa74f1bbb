"""Calls that answer wrongly without a warning are made in one place, which checks the answer."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "tangrams"
FORBIDDEN = re.compile(r"\.(solve|logdet|inv_quad(_logdet)?)\(")


def test_linear_operator_solves_are_called_nowhere_but_in_operators_solve():
    found = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != SOURCE / "operators" / "solve.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert not found, "use tangrams.operators.solve and logdet:\n" + "\n".join(found)
