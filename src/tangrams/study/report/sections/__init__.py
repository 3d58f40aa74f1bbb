"""The sections of the report: a file each, from the numbers to sentences and figures."""

from __future__ import annotations

from typing import Any

from tangrams.study.report.sections import explanations, fragility, labels, layers, next, redundancy, richness
from tangrams.study.report.sections.base import View

ORDER = (explanations, labels, redundancy, richness, fragility, layers, next)


def views(study: dict[str, Any]) -> list[View]:
    """Sections 2 to 8 in the order in which a reader asks."""
    return [section.view(study) for section in ORDER]


__all__ = ["ORDER", "View", "views"]
