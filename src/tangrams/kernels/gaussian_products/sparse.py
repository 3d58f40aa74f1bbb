"""Gaussian kernel products in sub-quadratic time: near pairs exactly, the rest from a sample of keys [047].

With F the near pairs and w random weights, E w = x, mostly zero,

    y = K_F (x − w) + K w

is Kx in expectation for *any* F, and its error is only that of the pairs outside F.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.kernels.gaussian_products.dense import BLOCK_ENTRIES, gaussian_product, squared_distances
from tangrams.kernels.gaussian_products.searches import NearPairs, NeighbourSearch
from tangrams.operators import block_generator

_GATHERED = 1 << 24
"""Numbers that are gathered from x at once."""


class AssumptionViolatedWarning(UserWarning):
    """The kernel matrix is not sparse enough for sampling to pay; products are exact instead."""


def near_product(
    q: Float[Tensor, "n d"],
    k: Float[Tensor, "m d"],
    x: Float[Tensor, "m c"],
    sigma: float | Tensor,
    row: Int64[Tensor, "p"],
    col: Int64[Tensor, "p"],
) -> Float[Tensor, "n c"]:
    """``K_F x``, K_F having the pairs (row, col) alone.

    Args:
        q: queries.
        k: keys.
        x: columns.
        sigma: the kernel's σ.
        row: queries of the pairs.
        col: their keys.
    """
    y = x.new_zeros(len(q), x.shape[1])
    portion = max(1, _GATHERED // max(q.shape[1], x.shape[1]))
    for i, j in zip(row.split(portion), col.split(portion), strict=True):
        values = torch.exp((q[i] - k[j]).square().sum(1) * (-0.5 / sigma**2))
        y = y.index_add(0, i, values[:, None] * x[j])
    return y


def sparse_gaussian_product(
    q: Float[Tensor, "n d"],
    k: Float[Tensor, "m d"],
    x: Float[Tensor, "m c"],
    sigma: float | Tensor,
    row: Int64[Tensor, "p"],
    col: Int64[Tensor, "p"],
    index: Int64[Tensor, "s"],
    weights: Float[Tensor, "s c"],
) -> Float[Tensor, "n c"]:
    r"""``K_F (x − w) + K w``, where w has the given rows and zeros elsewhere [047].

    Linear in (x, w), and unbiased for K x wherever E w = x. Differentiable in everything but the indices; with those
    fixed, gradients are unbiased too.

    Args:
        q: queries.
        k: keys.
        x: columns.
        sigma: the kernel's σ.
        row: queries of the pairs F.
        col: their keys.
        index: distinct keys where w is not zero.
        weights: w there.
    """
    rest = x.index_add(0, index, -weights)
    return near_product(q, k, rest, sigma, row, col) + gaussian_product(q, k[index], weights, sigma)


@dataclass(frozen=True)
class RowSample:
    """What some rows of the kernel matrix say about all of it.

    Attributes:
        mass: an estimate of ``‖K‖₁ = Σ K``.
        mass_error: its standard error.
        tail: an estimate of Σ K² of the pairs beyond the radius, or of all that were not found.
        tail_error: its standard error.
    """

    mass: float
    mass_error: float
    tail: float
    tail_error: float


def sample_rows(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    sigma: float,
    radius: float,
    *,
    num_rows: int | None = None,
    found: NearPairs | None = None,
    seed: int = 0,
) -> RowSample:
    """Estimate mass and tail from whole rows of the kernel matrix, drawn without replacement.

    Args:
        queries: q.
        keys: k.
        sigma: the kernel's σ.
        radius: pairs beyond it are the tail.
        num_rows: how many; by default about four million entries in all, at least 64 rows.
        found: where given, all other pairs are the tail, those within the radius included.
        seed: fixes the draw.
    """
    n, m = len(queries), len(keys)
    if not n * m:
        return RowSample(0.0, 0.0, 0.0, 0.0)
    step = max(1, BLOCK_ENTRIES // m)
    rows = min(n, num_rows or max(64, step))
    chosen = torch.randperm(n, generator=block_generator(seed, -2))[:rows].to(queries.device)
    masses, tails = [], []
    for start in range(0, rows, step):
        part = chosen[start : start + step]
        squared = squared_distances(queries[part], keys, sigma).double()
        K = torch.exp(squared * (-0.5 / sigma**2))
        masses.append(K.sum(1))
        if found is None:
            K = torch.where(squared > radius**2, K, 0.0)
        else:
            place = torch.full((n,), -1, device=part.device).index_copy_(0, part, torch.arange(len(part)).to(part))
            where = place[found.row]
            K[where[where >= 0], found.col[where >= 0]] = 0.0
        tails.append(K.square().sum(1))
    mass, tail = torch.cat(masses), torch.cat(tails)
    unseen = math.sqrt(1 - rows / n)  # drawn without replacement
    errors = [float(v.std()) * unseen * n / math.sqrt(rows) if 1 < rows < n else 0.0 for v in (mass, tail)]
    return RowSample(float(mass.mean()) * n, errors[0], float(tail.mean()) * n, errors[1])


def balanced_tau(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    sigma: float,
    tail: float,
    *,
    num_rows: int = 64,
    seed: int = 0,
) -> float:
    """The largest τ that leaves no more than ``tail`` of Σ K² to sampling, by some rows of the kernel matrix.

    The fewer pairs are searched for, the faster; the rest must stay small enough to be sampled.

    Args:
        queries: q.
        keys: k.
        sigma: the kernel's σ.
        tail: ``Σ K²`` over the pairs with K < τ.
        num_rows: rows that are looked at.
        seed: fixes the draw.
    """
    n, bins, reach = len(queries), 256, 2 * math.log(1e8)  # squared distances up to K = 1e-8, in units of σ²
    chosen = torch.randperm(n, generator=block_generator(seed, -4))[:num_rows].to(queries.device)
    squared = (squared_distances(queries[chosen], keys, sigma) / sigma**2).flatten().double()
    where = (squared * (bins / reach)).long().clamp_max(bins)
    sums = torch.bincount(where, weights=torch.exp(-squared), minlength=bins + 1) * (n / len(chosen))
    beyond = sums.flip(0).cumsum(0).flip(0)  # of a bin and all farther ones
    small = (beyond <= tail).nonzero()
    edge = int(small[0]) if len(small) else bins
    return math.exp(-0.5 * edge * reach / bins)


@dataclass(frozen=True)
class SparsePlan:
    """How products are formed: which pairs exactly, and how much of K is left to sampling.

    Attributes:
        pairs: F.
        tail: ``Σ K²`` outside F, by some rows and by some columns, the larger with two standard errors on top, and what
            the search missed, by its recall; where it dropped comparisons, by those rows and columns.
        mass: an estimate of ``‖K‖₁``.
        budget: ``ε² δ``: expected squared errors are at most that share of ``‖x‖²``.
        exact_keys: keys whose columns are always exact; no pairs of theirs are in F.
        exact_queries: queries whose rows are always exact; no pairs of theirs are in F.
    """

    pairs: NearPairs
    tail: float
    mass: float
    budget: float
    exact_keys: Int64[Tensor, "e"]
    exact_queries: Int64[Tensor, "f"]

    def swapped(self) -> SparsePlan:
        """The plan of the transpose."""
        return replace(self, pairs=self.pairs.swapped(), exact_keys=self.exact_queries, exact_queries=self.exact_keys)

    def to(self, device: torch.device) -> SparsePlan:
        """The same plan elsewhere."""
        return replace(
            self,
            pairs=self.pairs.to(device),
            exact_keys=self.exact_keys.to(device),
            exact_queries=self.exact_queries.to(device),
        )


def plan_product(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    sigma: float,
    *,
    eps: float,
    delta: float,
    tau: float,
    search: NeighbourSearch,
    max_pairs: int,
    exact_keys: Int64[Tensor, "e"],
    seed: int = 0,
) -> SparsePlan:
    """Search for the pairs with K ≥ τ, and estimate what is left, from its rows and from its columns.

    Args:
        queries: q.
        keys: k.
        sigma: the kernel's σ.
        eps: ε.
        delta: δ.
        tau: τ.
        search: finds the pairs.
        max_pairs: how many are held at most; more raise τ.
        exact_keys: keys whose columns are always exact.
        seed: fixes the draw of rows.
    """
    searched = torch.ones(len(keys), dtype=torch.bool, device=keys.device)
    searched[exact_keys] = False
    names, exact_keys = searched.nonzero()[:, 0], (~searched).nonzero()[:, 0]
    pairs = search.pairs(queries, keys[names], sigma * math.sqrt(2 * math.log(1 / tau)), max_pairs)
    found, others = (pairs, pairs.swapped()) if pairs.dropped else (None, None)
    # What lies in few rows, as of a query that just misses a hub of keys, is spread over columns, and the other way.
    sample = sample_rows(queries, keys[names], sigma, pairs.radius, found=found, seed=seed)
    across = sample_rows(keys[names], queries, sigma, pairs.radius, found=others, seed=seed)
    values = torch.exp(pairs.squared.double() * (-1 / sigma**2))  # K²
    missed = 0.0 if pairs.dropped else float((values * (1 / pairs.inclusion.double() - 1)).sum())
    return SparsePlan(
        replace(pairs, col=names[pairs.col]),
        max(side.tail + 2 * side.tail_error for side in (sample, across)) + missed,
        sample.mass,
        eps**2 * delta,
        exact_keys,
        exact_keys[:0],
    )


def heavy_keys(
    queries: Float[Tensor, "n d"],
    keys: Float[Tensor, "m d"],
    sigma: float,
    threshold: float,
    *,
    num_rows: int = 512,
    seed: int = 0,
) -> Int64[Tensor, "e"]:
    """Keys whose kernel column sums to more than ``threshold``, by a sample of queries: at most ``‖K‖₁ / threshold``.

    Args:
        queries: q.
        keys: k.
        sigma: the kernel's σ.
        threshold: such as ``n ** 0.75``.
        num_rows: queries that are sampled.
        seed: fixes the sample.
    """
    n = len(queries)
    chosen = torch.randperm(n, generator=block_generator(seed, -3))[:num_rows].to(queries.device)
    ones = queries.new_ones(len(chosen), 1)
    sums = gaussian_product(keys, queries[chosen], ones, sigma)[:, 0] * (n / len(chosen))
    return (sums > threshold).nonzero()[:, 0]


def closest_to_the_others(estimates: Float[Tensor, "r n c"]) -> Float[Tensor, "n c"]:
    """The estimate with the smallest median distance to the others: near the truth if most of them are.

    If more than half lie within ε of the truth, the chosen one lies within 3 ε.

    Args:
        estimates: independent ones.
    """
    flat = estimates.detach().flatten(1).double()
    distances = torch.cdist(flat, flat)
    return estimates[int(distances.median(1).values.argmin())]
