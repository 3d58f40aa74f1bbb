"""How sparse a Gaussian kernel matrix is: its mass, and what its largest entries hold of it [047]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.kernels.gaussian_products import LSHSearch, NearPairs, NeighbourSearch, gaussian_block
from tangrams.kernels.gaussian_products.dense import BLOCK_ENTRIES
from tangrams.operators import block_generator

_EXACT_ENTRIES = 20_000 * 20_000
_HEAD_ENTRY = 1e-3
"""Beyond the exact sizes entries of the head below this are not searched for, but left to the sampled rows."""


@dataclass(frozen=True)
class KernelMass:
    """The mass ``‖K‖₁ = Σ K`` of a kernel matrix, in its largest entries and elsewhere.

    The assumption of [047] is that :attr:`ratio` stays constant as n grows; since entries are at most one, the mass
    is then O(n).

    Attributes:
        total: ``Σ K``.
        standard_error: of the total; zero where it was summed.
        head: the sum of the ``num_head`` largest entries.
        head_error: its standard error; zero where it was summed.
        tail: the sum of all others.
        num_head: how many entries the head has.
    """

    total: float
    standard_error: float
    head: float
    head_error: float
    tail: float
    num_head: int

    @property
    def ratio(self) -> float:
        """``tail / head``."""
        return self.tail / self.head if self.head > 0 else math.inf


def gaussian_kernel_mass(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    sigma: float,
    num_head: int | None = None,
    *,
    search: NeighbourSearch | None = None,
    max_entries: int = _EXACT_ENTRIES,
    seed: int = 0,
) -> KernelMass:
    r"""Whether the kernel matrix is sparse in the sense of [047].

    Summed whole up to ``max_entries`` entries. Beyond, large entries are searched for, and all others, those within
    reach that the search missed too, are estimated from R sampled rows; with F the pairs that were found,

    .. math:: \sum_{ij} f(K_{ij}) ≈ \sum_{ij \in F} f(K_{ij}) + \frac nR \sum_{i \text{ drawn}, ij \notin F} f(K_{ij})

    which is unbiased for the total whatever the search misses. The head is the least of :math:`h τ + \sum (K - τ)_+`
    over τ, h its number of entries: each is unbiased, and their least errs to the low side, in the mean by no more than
    the error of that sum at the τ that is chosen.

    Args:
        queries: q.
        keys: k.
        sigma: the kernel's σ.
        num_head: entries of the head, ``max(n, m)`` by default.
        search: beyond ``max_entries``, :class:`~tangrams.kernels.gaussian_products.LSHSearch` by default.
        max_entries: n · m up to which everything is summed.
        seed: fixes sampled rows.

    Raises:
        ValueError: if there are no points, ``sigma <= 0``, or ``num_head < 1``.
    """
    n, m = len(queries), len(keys)
    num_head = max(n, m) if num_head is None else num_head
    if not n * m or not sigma > 0 or num_head < 1:
        raise ValueError(
            f"gaussian_kernel_mass needs points, sigma > 0 and num_head ≥ 1, got {n} queries and {m} keys, {sigma} and "
            f"{num_head}"
        )
    num_head = min(num_head, n * m)
    queries, keys = queries.detach(), keys.detach()
    rows, pairs = n, None
    if n * m > max_entries:
        radius = sigma * math.sqrt(2 * math.log(1 / _HEAD_ENTRY))
        pairs = (search or LSHSearch(seed=seed)).pairs(queries, keys, radius, num_head)
        rows = min(n, max(64, BLOCK_ENTRIES // m))
    chosen = torch.randperm(n, generator=block_generator(seed, -2))[:rows].to(queries.device)
    near = queries.new_zeros(0, dtype=torch.float64)
    if pairs is not None:
        near = torch.exp(pairs.squared.double() * (-0.5 / sigma**2))
    each = n / rows
    sums, largest, where = _scan(queries[chosen], keys, sigma, math.ceil(num_head / each), _among(pairs, chosen, n))
    values, order = torch.cat([near, largest]).sort(descending=True)
    stands_for = torch.cat([torch.ones_like(near), torch.full_like(largest, each)])[order]
    share = (num_head - (stands_for.cumsum(0) - stands_for)).clamp_min(0).minimum(stands_for)
    threshold = values[int((share > 0).sum()) - 1]
    excess = torch.zeros_like(sums).index_add_(0, where, (largest - threshold).clamp_min(0))
    error, head_error = (
        float(v.std()) * n * math.sqrt((1 - rows / n) / rows) if 1 < rows < n else 0.0 for v in (sums, excess)
    )
    total, head = float(near.sum() + each * sums.sum()), float((values * share).sum())
    return KernelMass(total, error, head, head_error, max(total - head, 0.0), num_head)


def _among(pairs: NearPairs | None, chosen: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The pairs whose query was chosen, by its place among the chosen."""
    if pairs is None:
        return chosen[:0], chosen[:0]
    place = torch.full((n,), -1, device=chosen.device).index_copy_(0, chosen, torch.arange(len(chosen)).to(chosen))
    row = place[pairs.row]
    return row[row >= 0], pairs.col[row >= 0]


def _scan(
    queries: Tensor, keys: Tensor, sigma: float, count: int, without: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, "rows"], Float[Tensor, "count"], Int64[Tensor, "count"]]:
    """Sums of rows, the largest entries, and the rows of these; some pairs do not count."""
    step = max(1, BLOCK_ENTRIES // len(keys))
    sums, largest, where = [], queries.new_zeros(0, dtype=torch.float64), without[0][:0]
    for start in range(0, len(queries), step):
        K = gaussian_block(queries[start : start + step], keys, sigma).double()
        inside = (without[0] >= start) & (without[0] < start + step)
        K[without[0][inside] - start, without[1][inside]] = 0.0
        sums.append(K.sum(1))
        largest = torch.cat([largest, K.flatten()])
        rows = torch.arange(start, start + len(K), device=K.device).repeat_interleave(len(keys))
        where = torch.cat([where, rows])
        largest, kept = largest.topk(min(count, len(largest)), sorted=False)
        where = where[kept]
    return torch.cat(sums), largest, where
