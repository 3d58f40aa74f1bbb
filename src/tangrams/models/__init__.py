"""Whole systems assembled from the pieces."""
