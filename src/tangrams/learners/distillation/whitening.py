"""Whitening of images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class ZCA:
    r"""Regularised whitening that stays close to the image.

    .. math:: x ↦ (x - μ)\, (Σ + λI)^{-1/2}, \qquad λ = r \, \mathrm{tr} Σ / d

    Kept as the thin singular value decomposition of the sample, so that no d × d matrix is formed where there are fewer
    samples than pixels.

    Attributes:
        mean: μ, ``(d,)``.
        directions: right singular vectors, ``(d, k)``.
        variances: of the sample along them, ``(k,)``.
        ridge: λ.
    """

    mean: Float[Tensor, "d"]
    directions: Float[Tensor, "d k"]
    variances: Float[Tensor, "k"]
    ridge: float

    @classmethod
    def fit(cls, images: Float[Tensor, "n c h w"], *, regularization: float = 0.1) -> ZCA:
        """Read mean and covariance off images.

        Args:
            images: a sample; each is first brought to zero mean and unit variance over its pixels.
            regularization: r.

        Raises:
            ValueError: if r is not positive.
        """
        if not regularization > 0:
            raise ValueError(f"ZCA needs a regularization > 0, got {regularization}")
        rows = _normalised(images)
        mean = rows.mean(0)
        _, s, Vh = torch.linalg.svd(rows - mean, full_matrices=False)
        variances = s.square() / len(rows)
        return cls(mean, Vh.mT.contiguous(), variances, regularization * float(variances.sum()) / rows.shape[1])

    def whiten(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Into the space of the synthetic set."""
        return (
            self._scaled(_normalised(images) - self.mean.to(images.device), -0.5).to(images.dtype).reshape(images.shape)
        )

    def restore(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Back to images; their own brightness and contrast are not kept by whitening."""
        rows = self._scaled(images.flatten(1).double(), 0.5) + self.mean.to(images.device)
        return rows.to(images.dtype).reshape(images.shape)

    def _scaled(self, rows: Tensor, power: float) -> Tensor:
        V, base = self.directions.to(rows.device), self.ridge**power
        gains = (self.variances.to(rows.device) + self.ridge) ** power - base
        return base * rows + ((rows @ V) * gains) @ V.mT


def _normalised(images: Tensor) -> Tensor:
    rows = images.flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.square().mean(1, keepdim=True).sqrt().clamp_min(1e-8)
