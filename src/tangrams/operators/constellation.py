"""The constellation {0, ±eᵢ} of 2m + 1 nodes, whose polyharmonic kernel matrix has an inverse in closed form [097].

Nodes are in the order 0, −e₁ … −e_m, +e₁ … +e_m. By its symmetry the kernel matrix has four different entries, and so
has its inverse but for the first: products with it take O(m).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.operators.feature_matrix import FeatureMatrix
from tangrams.operators.opaque import OpaqueOperator, fold, unfold

SHIFT, OFFSET = 5.0, 400.0
"""b and c of the paper: a covariance within a distance of about 20, far beyond normalised data."""


def polyharmonic(u: Tensor, b: float = SHIFT) -> Tensor:
    r"""``½ u (ln u − 2b)`` of squared distances u = r², which is r² (ln r − b); zero at zero.

    Gradients are finite everywhere; rounding below zero counts as zero.
    """
    u = u.clamp_min(0)
    safe = torch.where(u > 0, u, 1.0)
    return 0.5 * u * (safe.log() - 2 * b)


def polyharmonic_slope(u: Tensor, b: float = SHIFT) -> Tensor:
    """``ln u − 2b + 1``, twice the derivative of :func:`polyharmonic`; finite at zero."""
    return torch.where(u > 0, u, 1.0).log() - 2 * b + 1


def constellation_nodes(m: int, dtype: torch.dtype | None = None, device: torch.device | None = None) -> Tensor:
    """The nodes 0, −eᵢ, +eᵢ as rows, ``(2m + 1, m)``."""
    eye = torch.eye(m, dtype=dtype, device=device)
    return torch.cat([eye.new_zeros(1, m), -eye, eye])


def constellation_distances(x: Tensor) -> Tensor:
    """Squared distances ``(…, n, 2m + 1)`` to the nodes: ``‖x‖²``, ``‖x‖² + 1 + 2xᵢ``, ``‖x‖² + 1 − 2xᵢ``."""
    squared = x.square().sum(-1, keepdim=True)
    return torch.cat([squared, squared + 1 + 2 * x, squared + 1 - 2 * x], -1)


class InverseEntries(NamedTuple):
    r"""The different entries of the inverse of the kernel matrix of a constellation.

    Eliminating the centre leaves ``a₁ I + a₂ P + a₃ 11ᵀ`` on the other nodes, P exchanging ±eᵢ, with

    .. math:: a_1 = 2b - \ln 2, \quad a_2 = 3 \ln 2 - 2b, \quad a_3 = \ln 2 - b^2 / c,

    where c has cancelled by hand. It is positive definite exactly if b > ln 2, c > 0 and
    ``s = a₁ + a₂ + 2m a₃ > 0``, for every m if ``c ≥ b² / ln 2``.

    Attributes:
        centre: ``u₁``, entry (0, 0).
        spoke: ``u₂``, entries (0, j) and (j, 0).
        same: ``b₁``, what the diagonal has beyond ``other``.
        opposite: ``b₂``, what the entries of −eᵢ with +eᵢ have beyond ``other``.
        other: ``b₃``, any two nodes but the centre.
        centre_sum: the sum of row 0 times c.
        node_sum: the sum of any other row times c.
    """

    centre: float
    spoke: float
    same: float
    opposite: float
    other: float
    centre_sum: float
    node_sum: float

    @classmethod
    def of(cls, m: int, b: float = SHIFT, c: float = OFFSET) -> InverseEntries:
        """The entries for m dimensions.

        Args:
            m: the dimension.
            b: shift of the logarithm.
            c: the kernel's value at zero.

        Raises:
            ValueError: if ``m < 1``, or the kernel matrix is not positive definite.
        """
        if m < 1:
            raise ValueError(f"a constellation needs m ≥ 1 dimensions, got {m}")
        ln2 = math.log(2)
        plus, minus = 2 * ln2, 4 * (b - ln2)  # a₁ + a₂ and a₁ − a₂
        a3 = ln2 - b * b / c if c > 0 else -math.inf
        total = plus + 2 * m * a3
        if not (minus > 0 and total > 0 and math.isfinite(total)):
            raise ValueError(
                f"the polyharmonic kernel with b = {b} and c = {c} is not positive definite on the constellation of "
                f"{m} dimensions: take b > ln 2 and c ≥ b²/ln 2 = {b * b / ln2:.4g}"
            )
        t, k1 = 1 / total, c - b
        return cls(
            centre=(c + 2 * m * k1 * k1 * t) / (c * c),
            spoke=-k1 * t / c,
            same=(2 * b - ln2) / (plus * minus),
            opposite=(2 * b - 3 * ln2) / (plus * minus),
            other=-a3 / (total * plus),
            centre_sum=1 - 2 * m * k1 * t * b / c,
            node_sum=t * b,
        )


def _inverse_product(entries: InverseEntries, y: Tensor) -> Tensor:
    """``K⁻¹ y`` over the last dimension."""
    m = y.shape[-1] // 2
    y0, minus, plus = y.split([1, m, m], -1)
    total = minus.sum(-1, keepdim=True) + plus.sum(-1, keepdim=True)
    common = entries.spoke * y0 + entries.other * total
    return torch.cat(
        [
            entries.centre * y0 + entries.spoke * total,
            entries.same * minus + entries.opposite * plus + common,
            entries.same * plus + entries.opposite * minus + common,
        ],
        -1,
    )


def constellation_solve(
    y: Float[Tensor, "*batch nodes k"], b: float = SHIFT, c: float = OFFSET
) -> Float[Tensor, "*batch nodes k"]:
    """``K⁻¹ y``, K the kernel matrix of the constellation, in O(m) per column.

    Args:
        y: values at the nodes, 2m + 1 of them.
        b: shift of the logarithm.
        c: the kernel's value at zero.

    Raises:
        ValueError: if the number of rows is not an odd number above one.
    """
    if y.shape[-2] < 3 or y.shape[-2] % 2 == 0:
        raise ValueError(f"a constellation has 2m + 1 nodes, m ≥ 1; got {y.shape[-2]} rows")
    return _inverse_product(InverseEntries.of(y.shape[-2] // 2, b, c), y.mT).mT


def constellation_features(x: Tensor, b: float = SHIFT, c: float = OFFSET) -> Tensor:
    """``H = k(x, nodes) K⁻¹``: the splines that are one at a node and zero at all others, at x.

    c, which dwarfs the distances, is multiplied out by hand: float32 keeps its digits.

    Args:
        x: points.
        b: shift of the logarithm.
        c: the kernel's value at zero.

    Shape:
        ``(…, n, m)`` → ``(…, n, 2m + 1)``; as plain tensors, so that layers compile.
    """
    entries = InverseEntries.of(x.shape[-1], b, c)
    h = _inverse_product(entries, polyharmonic(constellation_distances(x), b))
    return torch.cat([h[..., :1] + entries.centre_sum, h[..., 1:] + entries.node_sum], -1)


def constellation_pullback(
    x: Float[Tensor, "... n m"], g: Float[Tensor, "... n nodes"], b: float = SHIFT
) -> Float[Tensor, "... n m"]:
    r"""The gradient in x of ``Σ g k(x, nodes)``: ``dh = g ∘ (ln u − 2b + 1)``, then ``x Σ_j dh_j + dh₋ − dh₊``.

    Args:
        x: points.
        g: the gradient in the kernel's values; for ``k(x, nodes) A`` it is ``G Aᵀ``.
        b: shift of the logarithm.
    """
    m = x.shape[-1]
    dh = g * polyharmonic_slope(constellation_distances(x).clamp_min(0), b)
    return x * dh.sum(-1, keepdim=True) + dh[..., 1 : m + 1] - dh[..., m + 1 :]


class ConstellationInverse(OpaqueOperator):
    r"""The inverse of the polyharmonic kernel matrix of {0, ±eᵢ}, ``(2m + 1, 2m + 1)``, O(m) per product [097].

    .. math:: k(r) = r^2 (\ln r - b) + c

    Args:
        m: the dimension.
        b: shift of the logarithm, above ln 2.
        c: the kernel's value at zero, positive; at least b² / ln 2 serves every m.
        dtype: the dtype it multiplies in, the default one if absent.
        device: the device it multiplies on, the CPU if absent.

    Raises:
        ValueError: if ``m < 1``, or the kernel matrix is not positive definite.

    Example:
        >>> inverse = ConstellationInverse(3, dtype=torch.float64)
        >>> nodes = constellation_nodes(3, torch.float64)
        >>> gram = polyharmonic(torch.cdist(nodes, nodes).square()) + 400
        >>> torch.allclose(inverse @ gram, torch.eye(7, dtype=torch.float64))
        True
    """

    def __init__(
        self,
        m: int,
        b: float = SHIFT,
        c: float = OFFSET,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        dtype, device = dtype or torch.get_default_dtype(), torch.device(device or "cpu")
        super().__init__(m=m, b=b, c=c, dtype=dtype, device=device)
        self.m, self.b, self.c = m, b, c
        self.entries = InverseEntries.of(m, b, c)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it multiplies in."""
        return self._nondifferentiable_kwargs["dtype"]

    @property
    def device(self) -> torch.device:
        """The device it multiplies on."""
        return self._nondifferentiable_kwargs["device"]

    def _size(self) -> torch.Size:
        return torch.Size((2 * self.m + 1, 2 * self.m + 1))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        return unfold(_inverse_product(self.entries, fold(rhs).mT).mT, rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._matmul(rhs)

    def _transpose_nonbatch(self) -> ConstellationInverse:
        return self

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        entries, m = self.entries, self.m
        value = torch.full(row.shape, entries.other, dtype=self.dtype, device=self.device)
        value = torch.where(row == col, entries.other + entries.same, value)
        value = torch.where((row - col).abs() == m, entries.other + entries.opposite, value)
        value = torch.where((row == 0) | (col == 0), entries.spoke, value)
        return torch.where((row == 0) & (col == 0), entries.centre, value)

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        everything = torch.arange(self.shape[0], device=self.device)
        grid = torch.meshgrid(everything if row is None else row, everything if col is None else col, indexing="ij")
        return FeatureMatrix(rows=self._pairs(*grid))

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> ConstellationInverse:
        return ConstellationInverse(self.m, self.b, self.c, dtype=dtype or self.dtype, device=device or self.device)

    def __repr__(self) -> str:
        return f"ConstellationInverse({self.m}, b={self.b:g}, c={self.c:g})"
