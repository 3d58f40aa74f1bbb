"""What a section of the report is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class View:
    """One section, ready to be laid out.

    Attributes:
        key: its key in study.json and its anchor.
        heading: the question.
        answer: one sentence with the numbers.
        advice: one line, what to do.
        finding: the answer in a clause, for the list at the top.
        weight: from 0 to 1, how much it stands out.
        quiet: nothing unusual; it stays folded.
        absent: it was not measured; ``answer`` says why.
        figures: what the section's template draws, by name.
    """

    key: str
    heading: str
    answer: str
    advice: str = ""
    finding: str = ""
    weight: float = 0.0
    quiet: bool = False
    absent: bool = False
    figures: dict[str, Any] = field(default_factory=dict)


def absent(key: str, heading: str, section: dict[str, Any]) -> View:
    """The view of a section that has no numbers."""
    return View(key, heading, f"Not measured: {section['reason'].rstrip('.')}.", absent=True)
