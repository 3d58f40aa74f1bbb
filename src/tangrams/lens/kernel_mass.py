"""How sparse a Gaussian kernel matrix is: its mass, and what its largest entries hold of it [047]."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.kernels.gaussian_products import LSHSearch, NeighbourSearch, gaussian_block, sample_rows
from tangrams.kernels.gaussian_products.dense import BLOCK_ENTRIES

_EXACT_ENTRIES = 20_000 * 20_000
_HEAD_ENTRY = 1e-3
"""Beyond the exact sizes entries of the head below this are not searched for."""


@dataclass(frozen=True)
class KernelMass:
    """The mass ``‖K‖₁ = Σ K`` of a kernel matrix, in its largest entries and elsewhere.

    The assumption of [047] is that :attr:`ratio` stays constant as n grows; since entries are at most one, the mass
    is then O(n).

    Attributes:
        total: ``Σ K``.
        standard_error: of the total; zero where it was summed.
        head: the sum of the ``num_head`` largest entries.
        tail: the sum of all others.
        num_head: how many entries the head has.
    """

    total: float
    standard_error: float
    head: float
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
    """Whether the kernel matrix is sparse in the sense of [047].

    Summed whole up to ``max_entries`` entries. Beyond, the total is estimated from sampled rows, and the head is what a
    search finds.

    Args:
        queries: q.
        keys: k.
        sigma: the kernel's σ.
        num_head: entries of the head, ``max(n, m)`` by default.
        search: for the head beyond ``max_entries``, :class:`~tangrams.kernels.gaussian_products.LSHSearch` by default.
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
    if n * m <= max_entries:
        total, head, error = *_summed(queries, keys, sigma, num_head), 0.0
    else:
        radius = sigma * math.sqrt(2 * math.log(1 / _HEAD_ENTRY))
        pairs = (search or LSHSearch(seed=seed)).pairs(queries, keys, radius, num_head)
        head = float(torch.exp(pairs.squared.double() * (-0.5 / sigma**2)).sum())
        sample = sample_rows(queries, keys, sigma, radius, seed=seed)
        total, error = sample.mass, sample.mass_error
    return KernelMass(total, error, head, max(total - head, 0.0), num_head)


def _summed(queries: Tensor, keys: Tensor, sigma: float, num_head: int) -> tuple[float, float]:
    """Σ K and the sum of its largest entries, by blocks."""
    total, largest = 0.0, queries.new_zeros(0, dtype=torch.float64)
    for part in queries.split(max(1, BLOCK_ENTRIES // len(keys))):
        K = gaussian_block(part, keys, sigma).double().flatten()
        total += float(K.sum())
        largest = torch.cat([largest, K])
        largest = largest.topk(min(num_head, len(largest)), sorted=False).values
    return total, float(largest.sum())
