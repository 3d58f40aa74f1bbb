"""Matrices with structure, the feature matrix, sketches, solves and spectra."""
