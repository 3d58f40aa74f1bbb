"""Point-approximate products: Aᵀ B from a few rows of A, and one index and one scale for each of the others [090]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_PANEL_ELEMENTS = 1 << 22
"""How many cosines between rows and generators are held at once."""


@dataclass(frozen=True)
class CompressedRows:
    """A matrix whose every row is a multiple of one of k generators, ``Ã_i = scale_i · generators[assign_i]``.

    Attributes:
        generators: the k rows that were drawn.
        assign: the generator that stands for each row, in the narrowest integer that holds it.
        scale: its signed multiple, 0 for a row that was dropped.
        beta: ``b / (b − dropped)``, by which products are multiplied.
        kept: which rows lie in the neighbourhood of their generator; None where no row can be dropped.
        epsilon: the radius of the neighbourhood, relative to the row's norm.
    """

    generators: Float[Tensor, "k n"]
    assign: Int[Tensor, "b"]
    scale: Float[Tensor, "b"]
    beta: float
    kept: Bool[Tensor, "b"] | None
    epsilon: float

    @property
    def nbytes(self) -> int:
        """Bytes of what a product needs: generators, indices and scales."""
        return sum(t.numel() * t.element_size() for t in (self.generators, self.assign, self.scale))

    def to_dense(self) -> Float[Tensor, "b n"]:
        """``Ã``, with a row of zeros where a row was dropped; without ``beta``."""
        return self.scale[:, None] * self.generators[self.assign.long()]


def pamm_compress(
    A: Float[Tensor, "b n"], k: int, *, epsilon: float = math.inf, generator: torch.Generator | None = None
) -> CompressedRows:
    r"""Replace every row of A by the nearest point on the lines through k rows drawn from it.

    .. math:: f(i) = \arg\max_j |\cos(A_i, C_j)|, \qquad α_i = \frac{⟨A_i, C_{f(i)}⟩}{\|C_{f(i)}\|^2}, \qquad
              \|A_i - α_i C_{f(i)}\|^2 = \|A_i\|^2 (1 - \cos^2)

    C are k rows, drawn uniformly without replacement among those that are not zero; ties go to the first generator. A
    row farther from its line than ``epsilon`` times its norm is dropped (α = 0), and products are multiplied by
    ``beta = b / (b − dropped)``. That makes them unbiased only if dropped rows are exchangeable with kept ones, and
    corrects nothing of what the projection loses; the paper found it best to drop nothing, the default. Drawn rows are
    their own points, so that never all are dropped.

    Costs b·k·n, in panels of rows. Cosines and scales are computed in at least float32.

    Args:
        A: the rows.
        k: how many generators; some are zero where fewer rows are not.
        epsilon: the radius of the neighbourhood.
        generator: draws the rows; the global stream by default.

    Raises:
        ValueError: if A has no rows, k is not in 1 … b, or epsilon is negative or not a number.

    Example:
        >>> A = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.5, 0.0]])
        >>> torch.equal(pamm_compress(A, 1).to_dense(), A)
        True

    [090] QKV Projections Require a Fraction of Their Memory.
    """
    b = A.shape[0]
    if b == 0:
        raise ValueError("pamm_compress expects rows to draw from, got a matrix without any")
    if not 1 <= k <= b:
        raise ValueError(f"pamm_compress expects 1 ≤ k ≤ {b}, the number of rows, got k = {k}")
    if not epsilon >= 0:
        raise ValueError(f"pamm_compress expects epsilon ≥ 0, got {epsilon}: use inf to keep every row")
    A = A.detach()
    compute = torch.promote_types(A.dtype, torch.float32)
    norms = torch.linalg.vector_norm(A, dim=1, dtype=compute)
    drawn = _draw(norms, k, generator)
    C = A[drawn]
    C_norms = torch.linalg.vector_norm(C, dim=1, dtype=compute)
    # A zero generator has α = 0 everywhere: the smallest normal number in place of its norm keeps 0 / 0 away.
    directions = C.to(compute) / C_norms.clamp_min(torch.finfo(compute).tiny)[:, None]
    assign, along = _nearest_lines(A, directions)
    scale = along / C_norms.clamp_min(torch.finfo(compute).tiny)[assign]
    kept, beta = None, 1.0
    if math.isfinite(epsilon):
        residual = (norms.square() - along.square()).clamp_min(0)
        rounding = 16 * torch.finfo(compute).eps  # the residual of a row against a multiple of itself
        kept = ~(residual > (epsilon**2 + rounding) * norms.square())  # not-a-number stays, to be seen
        kept[drawn] = True
        scale = torch.where(kept, scale, 0)
        beta = b / int(kept.sum())
    return CompressedRows(C, assign.to(_narrowest(len(C))), scale.to(A.dtype), beta, kept, float(epsilon))


def pamm_matmul(compressed: CompressedRows, B: Float[Tensor, "b m"]) -> Float[Tensor, "n m"]:
    r"""``Aᵀ B`` with A replaced by its compression: ``β Cᵀ B̃``, ``B̃_j = Σ_{f(i) = j} α_i B_i``.

    Equal to ``beta * compressed.to_dense().mT @ B`` at the cost of b·m + k·m·n; summed in at least float32.

    Args:
        compressed: of :func:`pamm_compress`.
        B: as many rows.

    Raises:
        ValueError: if B has another number of rows.

    Example:
        >>> A = torch.tensor([[1.0, 0.0], [-3.0, 0.0], [0.5, 0.0]])
        >>> pamm_matmul(pamm_compress(A, 1), torch.ones(3, 1)).mT
        tensor([[-1.5000,  0.0000]])
    """
    C, assign, scale = compressed.generators, compressed.assign, compressed.scale
    if B.shape[0] != len(assign):
        raise ValueError(f"pamm_matmul expects {len(assign)} rows, as many as were compressed, got {B.shape[0]}")
    dtype = torch.promote_types(torch.promote_types(C.dtype, B.dtype), torch.float32)
    sums = torch.zeros(len(C), B.shape[1], dtype=dtype, device=B.device)
    sums.index_add_(0, assign.long(), (scale.to(dtype)[:, None] * B).to(dtype))
    product = C.to(dtype).mT @ sums
    return (product * compressed.beta).to(torch.promote_types(C.dtype, B.dtype))


def pamm_error_bound(A: Float[Tensor, "b n"], B: Float[Tensor, "b m"], compressed: CompressedRows) -> float:
    r"""A bound on the Frobenius norm of ``Aᵀ B − pamm_matmul(compressed, B)``.

    .. math:: \|O - \tilde O\|_F^2 ≤ \|B\|_2^2 \left( (ε^2 + (β - 1)^2) \|A_I\|_F^2 + \|A_{I^c}\|_F^2 \right)

    I the kept rows, ε the radius or 1, whichever is smaller: no row is farther from a line than its norm. The paper
    states it for β = 1; the other term follows, as a residual is orthogonal to its line.

    Args:
        A: what was compressed.
        B: what it is multiplied with.
        compressed: the compression.
    """
    squares = torch.linalg.vector_norm(A, dim=1, dtype=torch.float64).square()
    kept = torch.ones_like(squares, dtype=torch.bool) if compressed.kept is None else compressed.kept
    radius = min(compressed.epsilon, 1.0) ** 2 + (compressed.beta - 1) ** 2
    inside = radius * squares[kept].sum() + squares[~kept].sum()
    return float(torch.linalg.matrix_norm(B.double(), 2) * inside.sqrt())


def pamm_generators_needed(b: int, neighbours: int, delta: float) -> int:
    r"""How many generators reach every row with probability at least 1 − δ: ``k ≥ (b / n_min) ln(b / δ)``, at most b.

    A row misses k draws with a probability of at most :math:`(1 - n_{\min}/b)^k`, summed over the rows.

    Args:
        b: rows.
        neighbours: n_min, how many rows lie in the neighbourhood of any row, itself counted.
        delta: the probability that some row is left without a generator nearby.

    Raises:
        ValueError: if neighbours is not in 1 … b, or delta not in (0, 1).

    Example:
        >>> pamm_generators_needed(4096, 512, 0.01)
        104
    """
    if not 1 <= neighbours <= b:
        raise ValueError(f"pamm_generators_needed expects 1 ≤ neighbours ≤ {b}, got {neighbours}")
    if not 0 < delta < 1:
        raise ValueError(f"pamm_generators_needed expects a probability in (0, 1), got delta = {delta}")
    return min(b, math.ceil(b / neighbours * math.log(b / delta)))


def _draw(norms: Tensor, k: int, generator: torch.Generator | None) -> Tensor:
    """K places, uniform without replacement among the rows that are not zero; zero ones last. No wait for a device."""
    device = norms.device if generator is None else generator.device
    priority = torch.rand(len(norms), generator=generator, device=device).to(norms.device)
    return torch.where(norms == 0, -1.0, priority).topk(k).indices


def _nearest_lines(A: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the unit vector with the largest absolute inner product, and that inner product, signed."""
    step = max(1, _PANEL_ELEMENTS // len(directions))
    places, values = [], []
    for panel in A.split(step):
        products = panel.to(directions.dtype) @ directions.mT
        place = products.abs().argmax(1)  # the first of several
        places.append(place)
        values.append(products.gather(1, place[:, None])[:, 0])
    return torch.cat(places), torch.cat(values)


def _narrowest(k: int) -> torch.dtype:
    return next(dtype for dtype in (torch.int16, torch.int32, torch.int64) if k - 1 <= torch.iinfo(dtype).max)
