"""Ridge regression on random mixtures of a kernel's features, from inner products alone."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators import solve
from tangrams.operators.ridge import GramSpectrum

_NULL = 1e-10
"""Eigenvalues below this share of the largest hold no feature that could be drawn."""


def projected_predictions(
    spectrum: GramSpectrum,
    cross: Float[Tensor, "m n"],
    diagonal: Float[Tensor, "m"],
    targets: Float[Tensor, "n C"],
    ridges: dict[int, float],
    *,
    seed: int = 0,
) -> dict[int, Float[Tensor, "m C"]]:
    r"""Predictions of ridge regression around the mean target on k Gaussian mixtures of the features, for several k.

    Mixtures of features of covariance K are Gaussian vectors of covariance K over the samples: with K = UΛUᵀ,
    :math:`F = U Λ^{1/2} Z / \sqrt k` on those of the fit, and given these
    :math:`k_x U Λ^{-1/2} Z / \sqrt k` with the variance that is left at a new sample x (its joint law with other new
    samples does not matter to its error). So the features need not be there. The first mixtures of a larger k are those
    of a smaller one [006].

    Args:
        spectrum: of the Gram matrix of the n samples.
        cross: inner products of m new samples with them.
        diagonal: K(x, x) of the new samples.
        targets: of the n samples.
        ridges: k → δ, not in units.
        seed: fixes the draw.

    Raises:
        ValueError: if a k is below one or a δ not positive.
    """
    for k, delta in ridges.items():
        if k < 1 or not delta > 0:
            raise ValueError(f"projected_predictions needs k ≥ 1 and δ > 0, got {k} and {delta}")
    generator = torch.Generator().manual_seed(seed)
    kept = spectrum.eigenvalues > _NULL * spectrum.eigenvalues[-1]
    root, U = spectrum.eigenvalues[kept].sqrt(), spectrum.eigenvectors[:, kept]
    most = max(ridges)
    Z = torch.randn(len(root), most, generator=generator, dtype=torch.float64).to(root.device)
    own = torch.randn(len(cross), most, generator=generator, dtype=torch.float64).to(root.device)
    at_new = (cross.to(torch.float64) @ U) / root
    left = (diagonal - at_new.square().sum(1)).clamp_min(0).sqrt()
    mixed, new = (U * root) @ Z, at_new @ Z + left[:, None] * own
    mean = targets.mean(0)
    found = {}
    for k, delta in ridges.items():
        F = mixed[:, :k] / math.sqrt(k)
        weights = solve(F.mT @ F + delta * torch.eye(k, dtype=F.dtype, device=F.device), F.mT @ (targets - mean))
        found[k] = mean + new[:, :k] @ weights / math.sqrt(k)
    return found
