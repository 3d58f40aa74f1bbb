"""Explain a kernel model's output by the training samples that it averages: smoother weights, which add up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tangrams.operators.ridge import GramSpectrum


@dataclass(frozen=True)
class SmootherExplanations:
    """Additive explanations: base + Σ_i contributions_i = output, one row per explained sample.

    Attributes:
        contributions: w_i(x) (y_ic − ȳ_c): ``(m, n)``, positive where a training sample supports the output.
        base: ȳ_c, what the model says before it looks at any sample: ``(m,)``.
        output: the model's output for the explained column: ``(m,)``.
        column: c, the explained output: ``(m,)``.
    """

    contributions: Float[Tensor, "m n"]
    base: Float[Tensor, "m"]
    output: Float[Tensor, "m"]
    column: Int[Tensor, "m"]

    def supporters(self, k: int) -> Int[Tensor, "m k"]:
        """The k training samples with the largest contributions, largest first."""
        return self.contributions.topk(min(k, self.contributions.shape[1]), dim=1).indices

    def opposers(self, k: int) -> Int[Tensor, "m k"]:
        """The k training samples with the most negative contributions, most negative first."""
        return self.contributions.topk(min(k, self.contributions.shape[1]), dim=1, largest=False).indices

    def gap(self) -> Float[Tensor, "m"]:
        """|base + Σ contributions − output|: rounding alone."""
        return (self.base + self.contributions.sum(1) - self.output).abs()

    def cancellation(self) -> Float[Tensor, "m"]:
        """Σ|a| / |Σa|: 1 where nothing cancels, thousands where the parts say nothing about the sum."""
        total = self.contributions.sum(1).abs()
        return self.contributions.abs().sum(1) / total.clamp_min(torch.finfo(total.dtype).tiny)

    def busiest(self, k: int) -> float:
        """The share of explained samples in whose k supporters the most frequent training sample appears."""
        return float(torch.bincount(self.supporters(k).flatten()).max()) / len(self.base)


def smoother_explanations(
    spectrum: GramSpectrum,
    cross: Tensor,
    targets: Tensor,
    *,
    delta: float = 1.0,
    columns: Int[Tensor, "m"] | None = None,
) -> SmootherExplanations:
    r"""Explain a kernel ridge model by smoother weights.

    .. math:: f_c(x) = \bar y_c + \sum_i w_i(x) (y_{ic} - \bar y_c), \qquad w(x) = k_x (K + \hat\delta I)^{-1}

    Unlike the dual coefficients α_i K(x, x_i), which also add up, the weights do not depend on the targets:
    a sample cannot support a prediction by being mislabelled. δ = 1 follows the network more closely than the δ
    that predicts best, which is for finding wrong labels.

    Args:
        spectrum: of the training samples' Gram.
        cross: inner products of the explained with the training samples, ``(m, n)``.
        targets: class indicators or regression targets, ``(n, C)``.
        delta: the ridge in units of the mean diagonal.
        columns: which output of each sample to explain; None: the model's largest.

    Shape:
        m explained samples, n training samples, C outputs.

    Raises:
        ValueError: on shapes that do not belong together.
    """
    n = len(spectrum)
    if cross.ndim != 2 or cross.shape[1] != n or targets.ndim != 2 or len(targets) != n:
        raise ValueError(
            f"smoother_explanations expects cross (m, {n}) and targets ({n}, C),"
            f" got {tuple(cross.shape)} and {tuple(targets.shape)}"
        )
    mean = targets.mean(0)
    weights = spectrum.weights(cross, delta)
    scores = mean + cross.to(weights.dtype) @ spectrum.dual(targets, delta)  # by another route than the weights
    if columns is None:
        columns = scores.argmax(1)
    contributions = weights * (targets - mean).mT[columns]
    return SmootherExplanations(contributions, mean[columns], scores.gather(1, columns[:, None])[:, 0], columns)
