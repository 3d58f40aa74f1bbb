"""A sample of the rows of a matrix, and what takes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sampling.hashing import as_keys, uniform_hash
from tangrams.operators.sampling.weights import Matrix, squared_norms, take_rows


@dataclass(frozen=True, eq=False)
class RowSample:
    """Some rows of a matrix as they are, with what it takes to weight them: all that one party sends to another.

    Attributes:
        keys: the rows' keys, int64 or strings, ``(k,)``.
        rows: the rows, ``(k, d)``, dense or sparse.
        weights: their weights, ``(k,)``.
        tau: τ; a row of weight w is kept with probability ``min(1, τ w)``. Infinite where no row was left out.
        squared_norm: ``‖A‖_F²`` of the whole matrix.
        seed: of the hash.
    """

    keys: np.ndarray
    rows: Tensor | scipy.sparse.csr_array
    weights: Float[np.ndarray, "k"]
    tau: float
    squared_norm: float
    seed: int

    @property
    def num_features(self) -> int:
        """d, the number of columns."""
        shape: Any = self.rows.shape
        return int(shape[1])

    @property
    def probabilities(self) -> Float[np.ndarray, "k"]:
        """With what probability each row was kept."""
        return np.ones(len(self)) if np.isinf(self.tau) else np.minimum(1.0, self.weights * self.tau)

    @property
    def words(self) -> int:
        """Its size in words of 64 bits.

        A key and a weight for each row, its entries (column and value where sparse), and τ, the norm and the seed.
        """
        entries = self.rows.numel() if isinstance(self.rows, Tensor) else 2 * self.rows.nnz
        return entries + 2 * len(self) + 3

    def __len__(self) -> int:
        return len(self.keys)


class RowSampler(ABC):
    """Takes samples of rows by hashes of their keys; samples with one seed are coordinated.

    A member writes :meth:`_choose`.

    Args:
        size: k, how many rows are kept.
        weights: ``rows → (n,)``, what a row is worth: :func:`squared_norms` and its like.
        seed: of the hash; parties that share it can use each other's samples.

    Raises:
        ValueError: if ``size < 1``.
    """

    def __init__(self, size: int, *, weights: Callable[[Matrix], np.ndarray] = squared_norms, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"{type(self).__name__} keeps at least one row, got size {size}")
        self.size = int(size)
        self.weights = weights
        self.seed = int(seed)

    @abstractmethod
    def _choose(
        self, keys: np.ndarray, hashes: Float[np.ndarray, "n"], weights: Float[np.ndarray, "n"]
    ) -> tuple[np.ndarray, float]:
        """Which of n > k rows of positive weight are kept, and τ."""

    def sample(self, matrix: Matrix, keys: Any = None) -> RowSample:
        """A sample of the rows of a matrix.

        Args:
            matrix: A, ``(n, d)``, or one column ``(n,)``.
            keys: what identifies a row across tables, integers or strings, each once; their positions if absent.

        Raises:
            ValueError: if keys are repeated or of another number than the rows, or a weight is negative or not finite.
        """
        if isinstance(matrix, Tensor) and matrix.dim() == 1:
            matrix = matrix[:, None]
        shape: Any = matrix.shape  # type: ignore[union-attr]
        n = int(shape[0])
        keys = np.arange(n) if keys is None else as_keys(keys)
        who = type(self).__name__
        if len(keys) != n:
            raise ValueError(f"{who} got {len(keys)} keys for {n} rows")
        if len(np.unique(keys)) != n:
            raise ValueError(f"{who} got a key twice: add up the rows of a key first, aggregate_rows(keys, rows)")
        energy, weights = squared_norms(matrix), np.asarray(self.weights(matrix), dtype=np.float64)
        if not np.isfinite(energy).all() or not (np.isfinite(weights) & (weights >= 0)).all():
            bad = int(np.flatnonzero(~(np.isfinite(energy) & np.isfinite(weights) & (weights >= 0)))[0])
            raise ValueError(f"{who} got a row that is not finite or of negative weight, at {bad} (key {keys[bad]!r})")
        candidates = np.flatnonzero(weights > 0)
        if len(candidates) > self.size:
            hashes = uniform_hash(keys[candidates], self.seed)
            chosen, tau = self._choose(keys[candidates], hashes, weights[candidates])
            kept = candidates[chosen]
        else:
            kept, tau = candidates, np.inf
        kept = kept[np.argsort(keys[kept], kind="stable")]
        return RowSample(keys[kept], take_rows(matrix, kept), weights[kept], float(tau), float(energy.sum()), self.seed)

    def __repr__(self) -> str:
        weights = getattr(self.weights, "__name__", repr(self.weights))
        return f"{type(self).__name__}({self.size}, weights={weights}, seed={self.seed})"


def aggregate_rows(keys: Any, rows: Float[Tensor, "n d"]) -> tuple[np.ndarray, Float[Tensor, "m d"]]:
    """Add up the rows of each key: ``Σ a_i b_jᵀ`` over all pairs that join is a product of such sums.

    Args:
        keys: integers or strings, repeats allowed.
        rows: one for each key.

    Raises:
        ValueError: if there are not as many keys as rows.
    """
    keys = as_keys(keys)
    if len(keys) != len(rows):
        raise ValueError(f"aggregate_rows got {len(keys)} keys for {len(rows)} rows")
    unique, position = np.unique(keys, return_inverse=True)
    sums = rows.new_zeros(len(unique), rows.shape[1])
    return unique, sums.index_add_(0, torch.from_numpy(position).to(rows.device), rows)
