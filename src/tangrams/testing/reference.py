"""Slow, obvious implementations that fast ones are judged by."""

from tangrams.features._reference import Memory, main_output, parameter_memory, reference_rows

__all__ = ["Memory", "main_output", "parameter_memory", "reference_rows"]
