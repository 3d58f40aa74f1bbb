"""The power law of a Gram spectrum, with the spread over fitting windows as its uncertainty."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tangrams.operators.spectra import fit_power_law


@dataclass(frozen=True)
class PowerLawWindows:
    """An exponent and how much it depends on where it is read.

    Attributes:
        exponent: α in ``λ_r ∝ r^−α``, read in the widest window.
        low: the smallest over all windows.
        high: the largest over all windows.
        windows: ``(first rank, last rank, exponent)`` of each window, the widest first.
    """

    exponent: float
    low: float
    high: float
    windows: tuple[tuple[int, int, float], ...]


def power_law_windows(eigenvalues: Float[Tensor, "n"], *, skip: int = 10, last: int | None = None) -> PowerLawWindows:
    """Read the exponent of a spectrum in several windows of ranks.

    The first ``skip`` ranks hold the classes and the last half of the spectrum is short of samples; neither is used.
    The interval of one least-squares line is far too narrow (±.001 where the windows differ by .1): the spread over
    windows is what there is.

    Args:
        eigenvalues: of a Gram matrix of n samples, in any order.
        skip: ranks left out at the start, the number of outputs.
        last: the last rank that counts; n/2 by default.

    Raises:
        ValueError: if fewer than eight ranks are left between ``skip`` and ``last``.
    """
    first, last = max(1, skip), len(eigenvalues) // 2 if last is None else last
    if last - first < 8:
        raise ValueError(
            f"power_law_windows needs eight ranks between {first} and {last}: give more samples or a smaller skip"
        )
    middle = round((first * last) ** 0.5)
    early, late = round((first * middle) ** 0.5), round((middle * last) ** 0.5)
    ranges = [(first, last), (first, late), (early, last), (early, late), (first, middle), (middle, last)]
    ranges = [(a, b) for a, b in dict.fromkeys(ranges) if b - a >= 3]
    windows = tuple((a, b, fit_power_law(eigenvalues, a, b).exponent) for a, b in ranges)
    exponents = [exponent for *_, exponent in windows]
    return PowerLawWindows(windows[0][2], min(exponents), max(exponents), windows)
