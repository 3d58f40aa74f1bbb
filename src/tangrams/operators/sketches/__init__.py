"""Sketches: random projections that never hold their matrix."""

from tangrams.operators.sketches.base import BLOCK, Column, Sketch, block_generator

__all__ = ["BLOCK", "Column", "Sketch", "block_generator"]
