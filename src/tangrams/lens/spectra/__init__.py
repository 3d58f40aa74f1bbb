"""Spectra of weights and of Gram matrices.

:func:`weight_spectrum` and :func:`fresh_spectrum` read a layer's, :func:`power_law_windows` the decay of a Gram
matrix's.
"""

from tangrams.lens.spectra.power_law import PowerLawWindows, power_law_windows
from tangrams.lens.spectra.weights import as_matrix, fresh_spectrum, weight_spectrum

__all__ = ["PowerLawWindows", "as_matrix", "fresh_spectrum", "power_law_windows", "weight_spectrum"]
