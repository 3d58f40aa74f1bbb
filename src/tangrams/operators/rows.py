"""What a feature matrix stands over: an opaque source of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tangrams.operators.sketches.base import Sketch


@runtime_checkable
class Rows(Protocol):
    """A source of feature rows: dense, computed on demand, or on disk.

    :class:`~tangrams.operators.FeatureMatrix` turns a source into a ``LinearOperator``. A source is immutable, is
    pickled and copied with its owner, and answers every product without holding ``(N, d)`` in memory unless it is
    dense already.

    Shape:
        N rows (samples times rows per sample, sample-major), d features.
    """

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        ...  # a protocol: whoever fits it writes the body

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every answer."""
        ...  # a protocol: whoever fits it writes the body

    @property
    def device(self) -> torch.device:
        """The device of every answer."""
        ...  # a protocol: whoever fits it writes the body

    def matmul(self, v: Tensor) -> Tensor:
        """``Φ v``: ``(d, k)`` → ``(N, k)``."""
        ...  # a protocol: whoever fits it writes the body

    def t_matmul(self, u: Tensor) -> Tensor:
        """``Φᵀ u``: ``(N, k)`` → ``(d, k)``."""
        ...  # a protocol: whoever fits it writes the body

    def dense(self) -> Tensor:
        """All rows, ``(N, d)``."""
        ...  # a protocol: whoever fits it writes the body

    def diag(self) -> Tensor:
        """Squared norms of the rows, the diagonal of the Gram matrix: ``(N,)``."""
        ...  # a protocol: whoever fits it writes the body

    def gram(self, other: Rows) -> Tensor:
        """``Φ Ψᵀ``: ``(N, M)``, by the fastest exact route; ``other is self`` may use symmetry."""
        ...  # a protocol: whoever fits it writes the body

    def take(self, index: Tensor) -> Rows:
        """The rows at the int64 ``index``, in that order, repeats allowed."""
        ...  # a protocol: whoever fits it writes the body

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Rows:
        """The same rows, answered in another dtype or on another device."""
        ...  # a protocol: whoever fits it writes the body

    def project(self, sketch: Sketch) -> Tensor:
        """``Φ Sᵀ`` for a bound sketch S of shape ``(k, d)``: ``(N, k)``."""
        ...  # a protocol: whoever fits it writes the body
