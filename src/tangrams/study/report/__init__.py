"""The report: one self-contained HTML file drawn from study.json."""

from tangrams.study.report.images import png, signed_png
from tangrams.study.report.render import findings, render
from tangrams.study.report.sections.glance import Finding
from tangrams.study.report.validate import schema, validate

__all__ = ["Finding", "findings", "png", "render", "schema", "signed_png", "validate"]
