"""Sketches: random projections that never hold their matrix."""
