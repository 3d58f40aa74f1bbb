"""Measure and show: attribution, spectra, fidelity, layers, plots."""
