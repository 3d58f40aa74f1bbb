"""The role of a sketch: a random matrix S, (k, p), with E SᵀS = I, that is never held in memory."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

if TYPE_CHECKING:
    from tangrams.operators.sketches.matrix import SketchMatrix, TransposedSketchMatrix
    from tangrams.operators.sketches.part import SketchPart

BLOCK = 1 << 16
"""Columns per block of the random stream: part of the definition of every sketch."""

_STRIP = 256
"""How many columns of S are formed at once where there is no direct way."""

_OUTER_ELEMENTS = 1 << 22
"""How many entries of an outer product are formed at once."""


@dataclass(frozen=True)
class Column:
    """A named run of feature columns, such as one parameter of a network.

    Attributes:
        name: the run's name; for a parameter the one in ``model.named_parameters()``.
        shape: the shape that the run flattens.
        start: first column.
        stop: one past the last column.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int


def block_generator(seed: int, block: int) -> torch.Generator:
    """The CPU generator of one block of :data:`BLOCK` columns.

    Everything random over feature columns draws from these, so that it is the same for any chunking, device and
    number of threads.
    """
    generator = torch.Generator()
    generator.manual_seed((seed * 0x9E3779B97F4A7C15 + block * 0xD1B54A32D192ED03) & 0x7FFF_FFFF_FFFF_FFFF)
    return generator


def stream_blocks(start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Cut the columns ``start … stop`` at the borders of the random stream.

    Yields:
        ``(block, low, high)``: the block's number, and the part of it that is covered, counted within the block.
    """
    for block in range(start // BLOCK, -(-stop // BLOCK) if start < stop else 0):
        first = block * BLOCK
        yield block, max(start - first, 0), min(stop - first, BLOCK)


def second_moment_embedding_size(dimension: int, epsilon: float, delta: float, square: float = 1.0) -> int:
    r"""From ``E ‖UᵀSᵀSU − I‖_F² ≤ (a d² + d)/k`` and Markov's inequality: holds for ``Var ≤ (a + ρ²)/k``.

    Args:
        dimension: d.
        epsilon: ε.
        delta: δ.
        square: a.
    """
    return math.ceil((square * dimension**2 + dimension) / (epsilon**2 * delta))


def mixed_embedding_size(
    dimension: int, size: int, flatness: float, epsilon: float, delta: float, square: float = 1.0
) -> int:
    r"""Of k rows of an orthonormal transform of signed columns; the smaller of two bounds, at most all m rows.

    Tropp (2011): but for probability δ/3 the rows of ``√m T D U`` have squared norms at most
    ``M = c (√d + √(8 log(3m/δ)))²``; then k rows without replacement obey the matrix Chernoff bound
    ``d exp(−k h(ε)/M)`` from above and from below. For few dimensions the second moment says less is enough.

    Args:
        dimension: d.
        size: m.
        flatness: c, m times the largest squared entry of the transform.
        epsilon: ε.
        delta: δ.
        square: a of :func:`second_moment_embedding_size`.
    """
    norms = flatness * (math.sqrt(dimension) + math.sqrt(8 * math.log(3 * size / delta))) ** 2
    chernoff = norms * math.log(3 * dimension / delta) / ((1 + epsilon) * math.log1p(epsilon) - epsilon)
    moment = second_moment_embedding_size(dimension, epsilon, delta, square)
    return min(math.ceil(chernoff), moment, size)


class Sketch(ABC):
    """A random matrix S of shape ``(k, p)`` with ``E SᵀS = I``; features are ``Φ Sᵀ``.

    A sketch is made unbound, ``CountSketch(2048, seed=0)``; :meth:`bind` gives it the columns it meets. A member
    writes :meth:`accumulate`, drawing from :func:`block_generator` only; it should write its adjoint
    :meth:`lift_block` and its :meth:`variance`, too. The whole state is ``(class, k, seed, columns)``. Products are
    differentiable; under ``torch.vmap`` say ``randomness="same"``, for the draws.

    Args:
        num_features: k, the number of sketched features.
        seed: fixes every draw.

    Raises:
        ValueError: if ``num_features < 1``.
    """

    takes_outer: bool = False
    """Whether :meth:`accumulate_outer` does without the products, so that factors are worth keeping apart."""

    def __init__(self, num_features: int, *, seed: int = 0) -> None:
        if num_features < 1:
            raise ValueError(f"{type(self).__name__} needs num_features ≥ 1, got {num_features}")
        self.num_features = int(num_features)
        self.seed = int(seed)
        self.columns: tuple[Column, ...] | None = None

    @property
    def in_features(self) -> int:
        """p, the number of columns it is bound to."""
        if self.columns is None:
            raise ValueError(f"{type(self).__name__} is not bound: use phi >> sketch, or sketch.bind(phi.columns)")
        return self.columns[-1].stop if self.columns else 0

    def bind(self, columns: Sequence[Column] | int) -> Sketch:
        """A copy over the given columns, or over that many nameless ones.

        Args:
            columns: runs that follow one another from column 0, or how many columns there are.

        Raises:
            ValueError: if the runs leave gaps, or one does not have the size of its shape.
        """
        if isinstance(columns, int):
            columns = (Column("features", (columns,), 0, columns),)
        expected = 0
        for column in columns:
            if column.start != expected or column.stop - column.start != math.prod(column.shape):
                raise ValueError(
                    f"{type(self).__name__} needs runs of columns that follow one another, got {column.name!r} of "
                    f"shape {column.shape} at {column.start}:{column.stop} where {expected} was next"
                )
            expected = column.stop
        bound = copy.copy(self)
        bound.columns = tuple(columns)
        return bound

    @abstractmethod
    def accumulate(self, block: Float[Tensor, "n width"], start: int, out: Float[Tensor, "n k"]) -> None:
        """Add ``block @ S[:, start : start + width].T`` to ``out``.

        Args:
            block: consecutive feature columns of some rows, in any dtype; sums are in that of ``out``.
            start: the first of them.
            out: added to, in place.
        """

    def lift_block(self, u: Float[Tensor, "n k"], start: int, stop: int) -> Float[Tensor, "n width"]:
        """``u @ S[:, start:stop]``, the adjoint of :meth:`accumulate`.

        Here from the columns of S, a strip at a time; every member of ours has a direct way.

        Args:
            u: sketched vectors.
            start: first column.
            stop: one past the last.
        """
        strips = [u[:, :0]]
        for first in range(start, stop, _STRIP):
            width = min(_STRIP, stop - first)
            columns = u.new_zeros(width, self.num_features)
            self.accumulate(torch.eye(width, dtype=u.dtype, device=u.device), first, columns)
            strips.append(u @ columns.mT)
        return torch.cat(strips, 1)

    def variance(self, rho: float = 0.0) -> float:
        """A bound on ``Var⟨Sx, Sy⟩ / (‖x‖² ‖y‖²)`` for features with cosine ``rho``.

        Raises:
            NotImplementedError: if none is known for this sketch.
        """
        raise NotImplementedError(f"{type(self).__name__} states no variance")

    def standard_error(self, rho: float = 0.0) -> float:
        """A bound on the standard error of ``⟨Sx, Sy⟩``, in units of ``‖x‖ ‖y‖``, for features with cosine ``rho``."""
        return math.sqrt(self.variance(rho))

    def embedding_size(self, dimension: int, *, epsilon: float = 0.5, delta: float = 0.1) -> int:
        """The k at which ``‖UᵀSᵀSU − I‖ ≤ ε`` with probability 1 − δ, for any orthonormal U of d columns.

        Sufficient, by the best bound we state for this kind of sketch; the sketch's own k does not matter.

        Args:
            dimension: d.
            epsilon: the distortion, below 1.
            delta: the probability to fail.

        Raises:
            NotImplementedError: if none is stated for this sketch.
        """
        raise NotImplementedError(f"{type(self).__name__} states no embedding size")

    @property
    def orthogonality(self) -> float:
        """ω in the S-transform ``α (1 + ω w)/(α + w)`` of SᵀS in the limit, α = k/p.

        1 for rows of a rotation of the p columns, p/m for rows of one of m ≥ p of which the columns are a part, and 0
        for independent entries, which sketches are taken for that do not say otherwise.
        """
        return 0.0

    def with_seed(self, seed: int) -> Sketch:
        """A copy with other draws, bound to the same columns.

        Args:
            seed: fixes every draw.
        """
        other = copy.copy(self)
        other.seed = int(seed)
        return other

    def accumulate_outer(
        self,
        left: Float[Tensor, "n t o"],
        right: Float[Tensor, "n t i"],
        start: int,
        out: Float[Tensor, "n k"],
    ) -> None:
        """Add the sketch of the features ``vec Σ_t left_t ⊗ right_t``, the weight gradient of a linear layer.

        Here the products are formed a few rows of the weight at a time; a member that can do without them overrides.

        Args:
            left: output gradients at each position.
            right: inputs at each position.
            start: the first of the ``o · i`` columns.
            out: added to, in place.
        """
        n, _, width = right.shape
        step = max(1, _OUTER_ELEMENTS // max(1, n * width))
        for first in range(0, left.shape[2], step):
            block = left[:, :, first : first + step].mT @ right
            self.accumulate(block.flatten(1), start + first * width, out)

    def project(self, features: Float[Tensor, "n p"]) -> Float[Tensor, "n k"]:
        """``Φ Sᵀ`` of dense rows, summed in at least float32.

        Args:
            features: the rows.

        Raises:
            ValueError: if they do not have the columns that the sketch is bound to.
        """
        if features.shape[-1] != self.in_features:
            raise ValueError(
                f"{type(self).__name__} is bound to {self.in_features} columns, got rows of {features.shape[-1]}"
            )
        dtype = torch.promote_types(features.dtype, torch.float32)
        out = features.new_zeros(features.shape[0], self.num_features, dtype=dtype)
        self.accumulate(features, 0, out)
        return out.to(features.dtype)

    def lift(self, u: Float[Tensor, "n k"]) -> Float[Tensor, "n p"]:
        """``u S``: the sketched vectors back in the space of the features, the adjoint of :meth:`project`.

        Args:
            u: sketched vectors.

        Raises:
            ValueError: if they do not have k entries.
        """
        if u.shape[-1] != self.num_features:
            raise ValueError(f"{type(self).__name__} has {self.num_features} features, got vectors of {u.shape[-1]}")
        out = torch.empty(u.shape[0], self.in_features, dtype=u.dtype, device=u.device)
        for start in range(0, self.in_features, BLOCK):
            stop = min(start + BLOCK, self.in_features)
            out[:, start:stop] = self.lift_block(u, start, stop)
        return out

    def part(self, start: int, stop: int) -> SketchPart:
        """The columns ``start:stop`` as a sketch of their own: shares of ``Φ Sᵀ`` that add up.

        Args:
            start: first column.
            stop: one past the last.
        """
        from tangrams.operators.sketches.part import SketchPart

        return SketchPart(self, start, stop)

    def matrix(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> SketchMatrix:
        """S as a ``LinearOperator`` of shape ``(k, p)``.

        Args:
            dtype: the dtype it multiplies in, the default one if absent.
            device: the device it multiplies on, the CPU if absent.
        """
        from tangrams.operators.sketches.matrix import SketchMatrix

        return SketchMatrix(sketch=self, dtype=dtype or torch.get_default_dtype(), device=torch.device(device or "cpu"))

    @property
    def mT(self) -> TransposedSketchMatrix:
        """Sᵀ, ``(p, k)``: ``Φ @ S.mT`` are the sketched features of a feature matrix of any dtype."""
        return self.matrix()._transpose_nonbatch()

    def describe(self) -> dict[str, Any]:
        """What this sketch is, as JSON data."""
        return {"class": type(self).__name__, "num_features": self.num_features, "seed": self.seed}

    def __repr__(self) -> str:
        options = {key: value for key, value in self.describe().items() if key not in {"class", "num_features"}}
        return f"{type(self).__name__}({self.num_features}, {', '.join(f'{k}={v}' for k, v in options.items())})"
