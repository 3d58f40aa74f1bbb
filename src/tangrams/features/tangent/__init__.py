"""Tangent features: exact products of a network's per-sample gradients."""
