"""What a sketch's error will be, before it is made: of inner products, of a Gram matrix, of a subspace."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from linear_operator import LinearOperator
from torch import Tensor

from tangrams.operators.feature_matrix import FeatureMatrix, as_feature_matrix
from tangrams.operators.sketches.base import Sketch


@dataclass(frozen=True)
class SketchError:
    """The stated error of a sketch on given features; square roots of expectations over its draws.

    Attributes:
        inner_product: of ``⟨Sx, Sy⟩`` in units of ``‖x‖ ‖y‖``, for the worst pair of rows.
        gram: of ``Φ SᵀS Φᵀ`` in Frobenius norm, relative to ``‖ΦΦᵀ‖``.
        rank: d, the dimension of the span of the rows, up to the rounding of their Gram matrix.
        distortion: of ``UᵀSᵀSU − I`` in Frobenius norm, U an orthonormal basis of the span: a subspace embedding to ε
            fails with probability at most ``distortion² / ε²``, whatever is known of the sketch.
        embedding_size: the k at which this kind of sketch is known to be a subspace embedding of the span to ε = ½ with
            probability 0.9, by the best bound we state; None where none is stated.
    """

    inner_product: float
    gram: float
    rank: int
    distortion: float
    embedding_size: int | None


def sketch_error(sketch: Sketch, features: Tensor | LinearOperator) -> SketchError:
    r"""State a sketch's theoretical error on a feature matrix, so that it can be sized before it is applied.

    Every variance here is of the form ``a + b ρ²``, so that with K = ΦΦᵀ

    .. math:: E \|\Phi S^T S \Phi^T - K\|_F^2 = \sum_{ij} Var⟨S x_i, S x_j⟩ \le a\, (\mathrm{tr} K)^2 + b\, \|K\|_F^2.

    Equality holds for Gaussian and orthogonal sketches; the others state bounds. Costs one Gram matrix.

    Args:
        sketch: bound to the columns of the features, or unbound.
        features: Φ.

    Raises:
        ValueError: if the features are all zero, or have other columns than the sketch is bound to.

    Example:
        >>> from tangrams.operators import GaussianSketch
        >>> error = sketch_error(GaussianSketch(100), torch.eye(10))
        >>> round(error.inner_product, 3), round(error.gram**2, 3), error.rank
        (0.1, 0.11, 10)
    """
    phi = features if isinstance(features, FeatureMatrix) else as_feature_matrix(features)
    if sketch.columns is None:
        sketch = sketch.bind(phi.shape[1])
    elif sketch.in_features != phi.shape[1]:
        raise ValueError(f"{sketch!r} is bound to {sketch.in_features} columns, the features have {phi.shape[1]}")
    phi = phi.to(torch.promote_types(phi.dtype, torch.float32))
    K = (phi @ phi.mT).to_dense()
    rounding = len(K) * torch.finfo(K.dtype).eps
    K = K.double()
    trace = float(K.diagonal().sum())
    if not trace > 0:
        raise ValueError("sketch_error got features that are all zero: they have no relative error")
    a, b = sketch.variance(0.0), sketch.variance(1.0) - sketch.variance(0.0)
    rank = int(torch.linalg.matrix_rank(K, rtol=rounding, hermitian=True))
    try:
        size = sketch.embedding_size(rank)
    except NotImplementedError:
        size = None
    return SketchError(
        inner_product=sketch.standard_error(_largest_cosine(K) if b > 0 else 0.0),
        gram=math.sqrt(a * trace**2 / float(K.square().sum()) + b),
        rank=rank,
        distortion=math.sqrt(a * rank**2 + b * rank),
        embedding_size=size,
    )


def _largest_cosine(K: Float[Tensor, "n n"]) -> float:
    """Of two different rows; of a row with itself where there is one only."""
    if len(K) < 2:
        return 1.0
    norms = K.diagonal().sqrt()
    cosines = (K / (norms[:, None] * norms)).nan_to_num().fill_diagonal_(0)
    return min(float(cosines.abs().max()), 1.0)


@dataclass(frozen=True)
class EmbeddingStatistics:
    """How ``gᵀSᵀSh`` is spread over the draws of a sketch, in units of ``‖g‖ ‖h‖``.

    Attributes:
        bias: the mean of ``gᵀSᵀSh − gᵀh``.
        variance: its variance; α/k in the paper's terms.
        tail: the quantiles of its modulus at 0.5, 0.95 and 0.99, times √k; β in the paper's terms.
        draws: how many draws were taken.
    """

    bias: float
    variance: float
    tail: tuple[float, float, float]
    draws: int


def embedding_statistics(
    sketch: Sketch, g: Float[Tensor, "n"], h: Float[Tensor, "n"], draws: int = 1000
) -> EmbeddingStatistics:
    """Measure a sketch as an oblivious coordinate-wise embedding: bias, variance and tail for a fixed pair [032].

    A regression's coordinates are as accurate as ``gᵀSᵀSh`` is for each of d fixed pairs at once, so that not the
    variance, which all sketches share, but the tail decides.

    Args:
        sketch: bound to n columns, or unbound; drawn anew with the seeds that follow its own.
        g: a vector.
        h: another.
        draws: how many seeds.

    Raises:
        ValueError: if a vector is zero, or there are fewer than two draws.
    """
    pair = torch.stack([g, h]).double()
    norms = pair.norm(dim=1)
    if draws < 2 or not bool((norms > 0).all()):
        raise ValueError(f"embedding_statistics needs vectors that are not zero and draws ≥ 2, got {draws}")
    pair = pair / norms[:, None]
    bound = sketch if sketch.columns is not None else sketch.bind(len(g))
    sketched = torch.stack([bound.with_seed(bound.seed + draw).project(pair) for draw in range(draws)])
    errors = torch.linalg.vecdot(sketched[:, 0], sketched[:, 1]) - pair[0] @ pair[1]
    levels = errors.abs().quantile(errors.new_tensor([0.5, 0.95, 0.99])) * math.sqrt(sketch.num_features)
    return EmbeddingStatistics(float(errors.mean()), float(errors.var()), tuple(levels.tolist()), draws)
