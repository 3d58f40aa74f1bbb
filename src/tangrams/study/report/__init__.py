"""The report: one self-contained HTML file drawn from study.json."""

from tangrams.study.report.images import png, signed_png
from tangrams.study.report.validate import schema, validate

__all__ = ["png", "schema", "signed_png", "validate"]
