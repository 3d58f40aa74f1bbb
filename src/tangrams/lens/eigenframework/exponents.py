"""The exponents of a task, read off a sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.lens.eigenframework.gram_task import GramTask
from tangrams.lens.spectra.power_law import PowerLawWindows, power_law_windows
from tangrams.operators.ridge import GramSpectrum


@dataclass(frozen=True)
class TaskExponents:
    """λ_i ~ i^−α and v_i² ~ i^−β, with the spread over fitting windows.

    Attributes:
        alpha: α.
        beta: β.
    """

    alpha: PowerLawWindows
    beta: PowerLawWindows


def measure_exponents(
    K: Float[Tensor, "N N"],
    y: Float[Tensor, "N"] | Float[Tensor, "N C"],
    *,
    skip: int = 10,
    noise_variance: float = 0.0,
) -> TaskExponents:
    r"""Both exponents of a task by what they do to its risk [006].

    Lines through finite spectra are unreliable, and through coefficients more so. Instead: at δ = 0 the resolution
    falls like :math:`κ(n) ∼ n^{-α}`, and what is not learned at it like :math:`b_2 - σ^2 ∼ n^{1-β}`; both are measured
    by :class:`GramTask` for n up to 0.9 N, and fitted in windows of n. Noise that is not subtracted flattens β.

    Args:
        K: a Gram matrix.
        y: the targets at its samples.
        skip: sample sizes left out at the start.
        noise_variance: σ², summed over outputs.

    Raises:
        ValueError: if the spectrum ends, or σ² exceeds what is left of the target.
    """
    task = GramTask.of(GramSpectrum.of(K), y.to(torch.float64).reshape(len(y), -1))
    if task.law is None:
        raise ValueError(f"measure_exponents needs a spectrum that goes on, K has rank {task.rank:.0f} of {len(K)}")
    kappas = task.resolutions()
    left = torch.tensor([task.errors(float(kappa))[1] for kappa in kappas], dtype=torch.float64) - noise_variance
    if not bool((left > 0).all()):
        raise ValueError(f"measure_exponents got σ² = {noise_variance}, more than is left of the target")
    last = len(kappas)
    alpha, decay = (power_law_windows(curve, skip=skip, last=last) for curve in (kappas, left))
    windows = tuple((a, b, 1 + exponent) for a, b, exponent in decay.windows)
    return TaskExponents(alpha, PowerLawWindows(1 + decay.exponent, 1 + decay.low, 1 + decay.high, windows))
