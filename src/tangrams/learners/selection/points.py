"""Where a selection gets its inner products from: feature rows, or a kernel of samples."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.features.deferred_rows import DeferredRows
from tangrams.learners.base import HasGram, num_samples, take_samples
from tangrams.operators import DenseRows, FeatureMatrix, as_feature_matrix
from tangrams.operators.dense_rows import PANEL_BYTES, accumulate_dtype

_GRAM_BYTES = 1 << 29
"""Wide rows on disk or not computed yet are asked for all their inner products at once up to this size."""

_IN_MEMORY = (DenseRows, DeferredRows)
"""Rows that are held as a tensor, or will be once they are asked for."""

_COLUMNS = 256
"""Samples whose products with all others are held at once."""


class Points(ABC):
    """Samples in parts, numbered through: the pool, then labelled samples, then any others.

    Args:
        sizes: how many samples each part has.

    Attributes:
        diag: squared norms of all: ``(N,)``.
    """

    diag: Float[Tensor, "N"]

    def __init__(self, sizes: Sequence[int]) -> None:
        self.starts = [0]
        for size in sizes:  # an absent part is an empty one
            self.starts.append(self.starts[-1] + size)

    @property
    def num_pool(self) -> int:
        """How many samples there are to choose from."""
        return self.starts[1]

    @property
    def labelled(self) -> Int64[Tensor, "m"]:
        """The numbers of the labelled samples."""
        return torch.arange(self.starts[1], self.starts[2], device=self.diag.device)

    @abstractmethod
    def products(self, index: Int64[Tensor, "k"], parts: int = 1) -> Float[Tensor, "n k"]:
        """Inner products of the samples of the first ``parts`` parts with those at ``index``."""

    @abstractmethod
    def coordinates(self) -> Float[Tensor, "N r"]:
        """Features of all samples with these inner products, float64."""

    def sums(self, parts: int) -> Float[Tensor, "n"]:
        """Each sample's inner product with the sum of all, over the first ``parts`` parts."""
        index = torch.arange(self.starts[parts], device=self.diag.device)
        return torch.stack([self.products(some, parts).sum(1) for some in index.split(_COLUMNS)]).sum(0)

    def squared_distances(self, index: Int64[Tensor, "k"]) -> Float[Tensor, "n k"]:
        """``k(x, x) + k(x', x') − 2 k(x, x')`` of the pool and the samples at ``index``, none below zero."""
        K = self.products(index)
        return K.mul_(-2).add_(self.diag[: self.num_pool, None]).add_(self.diag[index]).clamp_min_(0)


class FeaturePoints(Points):
    """Samples as dense feature rows.

    Args:
        parts: rows of each part, all with d columns; absent parts without rows.
    """

    def __init__(self, parts: Sequence[Float[Tensor, "_ d"]]) -> None:
        super().__init__([len(part) for part in parts])
        self.parts = list(parts)
        self.diag = torch.cat([torch.linalg.vector_norm(part, dim=1).square() for part in parts])  # the fastest way

    @property
    def pool(self) -> Float[Tensor, "n d"]:
        """The rows to choose from."""
        return self.parts[0]

    def rows(self, index: Int64[Tensor, "k"]) -> Float[Tensor, "k d"]:
        """The rows of any samples."""
        if bool((index < self.num_pool).all()):
            return self.pool[index]
        out = self.pool.new_empty(len(index), self.pool.shape[1])
        for part, (start, stop) in zip(self.parts, pairwise(self.starts), strict=True):
            here = (start <= index) & (index < stop)
            out[here] = part[index[here] - start]
        return out

    def products(self, index: Int64[Tensor, "k"], parts: int = 1) -> Float[Tensor, "n k"]:
        """``Φ Φ[index]ᵀ``."""
        right = self.rows(index).mT
        found = [part @ right for part in self.parts[:parts]]
        return found[0] if parts == 1 else torch.cat(found)

    def coordinates(self) -> Float[Tensor, "N d"]:
        """The rows themselves."""
        return torch.cat([part.to(torch.float64) for part in self.parts])

    def sums(self, parts: int) -> Float[Tensor, "n"]:
        """``Φ (Φᵀ 1)``."""
        total = torch.stack([part.sum(0) for part in self.parts[:parts]]).sum(0)
        return torch.cat([part @ total for part in self.parts[:parts]])


class KernelPoints(Points):
    """Samples seen through a kernel, or rows too wide to be held: columns of the Gram matrix, as they are needed.

    Args:
        parts: the samples of each part, whatever the kernel takes; None for an absent one.
        kernel: their inner products.
    """

    def __init__(self, parts: Sequence[Any], kernel: HasGram) -> None:
        super().__init__([0 if part is None else num_samples(part) for part in parts])
        self.parts = list(parts)
        self.kernel = kernel
        with torch.no_grad():
            self.diag = torch.cat([_wide(kernel.diag(part)) for part in parts if part is not None])

    def _block(self, part: int, index: Int64[Tensor, "k"]) -> Float[Tensor, "n k"]:
        """All samples of one part against those at ``index``, in the order of ``index``."""
        found: Tensor | None = None
        for other, (start, stop) in zip(self.parts, pairwise(self.starts), strict=True):
            here = (start <= index) & (index < stop)
            if bool(here.any()):
                with torch.no_grad():
                    K = _wide(self.kernel.gram(self.parts[part], take_samples(other, index[here] - start)))
                found = K.new_empty(K.shape[0], len(index)) if found is None else found
                found[:, here] = K
        assert found is not None  # every index lies in a part
        return found

    def products(self, index: Int64[Tensor, "k"], parts: int = 1) -> Float[Tensor, "n k"]:
        """Columns of the Gram matrix."""
        return torch.cat([self._block(part, index) for part in range(parts) if self.parts[part] is not None])

    def measured(self) -> GramPoints:
        """The same samples with their whole Gram matrix at hand."""
        present = [part for part in self.parts if part is not None]
        with torch.no_grad():
            blocks = [[self.kernel.gram(x) if y is x else self.kernel.gram(x, y) for y in present] for x in present]
        K = torch.cat([torch.cat([_wide(block) for block in row], 1) for row in blocks])
        return GramPoints([stop - start for start, stop in pairwise(self.starts)], K)

    def coordinates(self) -> Float[Tensor, "N N"]:
        """Those of the Gram matrix."""
        return self.measured().coordinates()


class GramPoints(Points):
    """Samples whose Gram matrix is known.

    Args:
        sizes: how many samples each part has.
        gram: of all of them.
    """

    def __init__(self, sizes: Sequence[int], gram: Float[Tensor, "N N"]) -> None:
        super().__init__(sizes)
        self.gram = gram
        self.diag = gram.diagonal().clone()

    def products(self, index: Int64[Tensor, "k"], parts: int = 1) -> Float[Tensor, "n k"]:
        """Columns of it."""
        return self.gram[: self.starts[parts], index]

    def coordinates(self) -> Float[Tensor, "N N"]:
        """``U √Λ`` of the Gram matrix ``U Λ Uᵀ``."""
        eigenvalues, U = torch.linalg.eigh(((self.gram + self.gram.mT) / 2).to(torch.float64))
        return U * eigenvalues.clamp_min(0).sqrt()


class _RowProducts:
    """Inner products of wide feature matrices, by their own exact routes."""

    def gram(self, x: FeatureMatrix, y: FeatureMatrix | None = None) -> Tensor:
        return (x @ (x if y is None else y).mT).to_dense()

    def diag(self, x: FeatureMatrix) -> Tensor:
        return x.diag_gram()


def as_points(parts: Sequence[Any], kernel: HasGram | None, dtype: torch.dtype | None) -> Points:
    """The samples of each part, as features where they may be held.

    A feature matrix that is in memory already or fits one panel is read; a larger one gives all inner products once
    where they fit, else a column at a time, one pass over it for each.

    Args:
        parts: samples for a kernel, else tensors or feature matrices with equal columns; None for an absent part.
        kernel: None for the inner products of the rows.
        dtype: what to compute in; at least float32.
    """
    if kernel is not None:
        return KernelPoints(parts, kernel)
    present = [part for part in parts if part is not None]
    away = [part for part in present if isinstance(part, FeatureMatrix) and not isinstance(part.rows, _IN_MEMORY)]
    n, d = sum(part.shape[0] for part in present), present[0].shape[1]
    own = present[0].dtype
    for part in present[1:]:
        own = torch.promote_types(own, part.dtype)
    if not away or n * d * own.itemsize <= PANEL_BYTES:
        to: dict[str, Any] = {"device": present[0].device, "dtype": dtype or accumulate_dtype(own)}
        dense = [part.to_dense() if isinstance(part, FeatureMatrix) else part for part in present]
        rows = iter([part.to(**to) for part in dense])
        return FeaturePoints([torch.empty(0, d, **to) if part is None else next(rows) for part in parts])
    matrices = [None if part is None else as_feature_matrix(part).to(own) for part in parts]
    points = KernelPoints(matrices, _RowProducts())
    return points.measured() if n * n * 8 <= _GRAM_BYTES else points


def _wide(K: Tensor) -> Tensor:
    return K.to(accumulate_dtype(K.dtype))
