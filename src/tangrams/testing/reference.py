"""Slow, obvious implementations that fast ones are judged by."""

from tangrams.features._reference import main_output, parameter_groups, reference_rows

__all__ = ["main_output", "parameter_groups", "reference_rows"]
