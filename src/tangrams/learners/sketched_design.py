"""A sketched design taken apart once, and ridge regression on it for any penalty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators import FeatureMatrix, Sketch


@dataclass(frozen=True)
class SketchedDesign:
    """``X Sᵀ = U diag(s) Vᵀ + 1 meanᵀ``, float64, singular values of zero left out.

    Attributes:
        sketch: S, bound.
        U: left singular vectors, ``(n, r)``.
        s: singular values, ``(r,)``.
        V: right singular vectors, ``(q, r)``.
        mean: of the sketched features, ``(q,)``; zero without an intercept.
    """

    sketch: Sketch
    U: Float[Tensor, "n r"]
    s: Float[Tensor, "r"]
    V: Float[Tensor, "q r"]
    mean: Float[Tensor, "q"]

    @classmethod
    def of(cls, sketch: Sketch, sketched: Float[Tensor, "n q"], centre: bool) -> SketchedDesign:
        """Take sketched features apart."""
        sketched = sketched.double()
        mean = sketched.mean(0) if centre else sketched.new_zeros(sketched.shape[1])
        U, s, Vt = torch.linalg.svd(sketched - mean, full_matrices=False)
        kept = s > s[:1].clamp_min(torch.finfo(s.dtype).tiny) * max(sketched.shape) * torch.finfo(s.dtype).eps
        return cls(sketch, U[:, kept], s[kept], Vt[kept].mT, mean)

    @property
    def eigenvalues(self) -> Float[Tensor, "r"]:
        """Those of ``S XᵀX Sᵀ / n`` that are not zero."""
        return self.s.square() / len(self.U)

    def check(self, penalty: float) -> None:
        """Raise unless the penalised matrix is positive definite.

        Raises:
            ValueError: if it is not.
        """
        least = float(self.eigenvalues[-1]) if len(self.s) else 0.0
        if not penalty > -least and not (penalty == 0 and not len(self.s)):
            raise ValueError(
                f"the penalty {penalty} is not above −{least:.3g}, minus a sketched design's smallest eigenvalue"
            )

    def shrinkage(self, penalty: float) -> Float[Tensor, "r"]:
        """``s² / (s² + n λ)``, the eigenvalues of the smoother."""
        return self.eigenvalues / (self.eigenvalues + penalty)

    def dof(self, penalty: float) -> float:
        """The trace of the smoother."""
        return float(self.shrinkage(penalty).sum())

    def fitted(self, y: Float[Tensor, "n"], penalty: float) -> Float[Tensor, "n"]:
        """The fit of centred targets."""
        return self.U @ (self.shrinkage(penalty) * (self.U.mT @ y))

    def coefficients(self, y: Float[Tensor, "n"], penalty: float) -> tuple[Float[Tensor, "p"], float]:
        """B in the space of the features, and what it makes of their mean."""
        sketched = self.V @ (self.shrinkage(penalty) / self.s * (self.U.mT @ y))
        return self.sketch.lift(sketched[None])[0], float(self.mean @ sketched)

    def equivalent_ridge(self, penalty: float) -> float:
        """``(1 + ω w) / mean(1/(e + λ))`` over all q eigenvalues, w = −dof/p; 0 where the mean is infinite."""
        e = self.eigenvalues
        q = self.sketch.num_features
        zeros = q - len(e)
        if zeros and penalty <= 0:
            return 0.0
        mean = (float((1 / (e + penalty)).sum()) + (zeros / penalty if zeros else 0.0)) / q
        return (1 - self.sketch.orthogonality * self.dof(penalty) / self.sketch.in_features) / mean


def sketch_designs(rows: FeatureMatrix, sketches: Sequence[Sketch], centre: bool) -> list[SketchedDesign]:
    """Sketch a feature matrix with several sketches in one pass over it, and take each apart.

    Args:
        rows: X.
        sketches: bound to its columns.
        centre: whether the means are taken off.
    """
    together = rows @ _Several(sketches).mT
    parts = together.split([sketch.num_features for sketch in sketches], dim=1)
    return [SketchedDesign.of(sketch, part, centre) for sketch, part in zip(sketches, parts, strict=True)]


class _Several(Sketch):
    """Sketches of the same columns, one under the other, unscaled: one pass over the features serves them all."""

    def __init__(self, sketches: Sequence[Sketch]) -> None:
        super().__init__(sum(sketch.num_features for sketch in sketches))
        self.sketches = tuple(sketches)
        self.columns = sketches[0].columns
        self.takes_outer = any(sketch.takes_outer for sketch in sketches)

    def _parts(self, out: Tensor) -> list[Tensor]:
        return list(out.split([sketch.num_features for sketch in self.sketches], dim=1))

    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        for sketch, part in zip(self.sketches, self._parts(out), strict=True):
            sketch.accumulate(block, start, part)

    def accumulate_outer(
        self, left: Float[Tensor, "n t o"], right: Float[Tensor, "n t i"], start: int, out: Float[Tensor, "n k"]
    ) -> None:
        for sketch, part in zip(self.sketches, self._parts(out), strict=True):
            sketch.accumulate_outer(left, right, start, part)
