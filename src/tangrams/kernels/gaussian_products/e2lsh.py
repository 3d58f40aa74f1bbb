"""Locality-sensitive hashing for Euclidean distances (E2LSH; Datar, Immorlica, Indyk and Mirrokni, 2004)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.kernels.gaussian_products.dense import squared_distances
from tangrams.kernels.gaussian_products.searches import NearPairs, PairCollector
from tangrams.operators import block_generator

_CANDIDATES = 1 << 20
"""Candidate pairs that are compared at once."""

_MAX_TABLES = 256


def collision_probability(distance: Tensor, width: float) -> Tensor:
    r"""The chance that two points share one cell of width w on a random line.

    .. math:: P(r) = 1 - 2 Φ(-w/r) - \frac{2 r}{\sqrt{2π}\, w} \left(1 - e^{-w^2 / 2 r^2}\right)

    Args:
        distance: r ≥ 0.
        width: w.
    """
    ratio = width / distance.double().clamp_min(1e-12 * width)
    tail = torch.special.ndtr(-ratio)
    flat = 2 / (math.sqrt(2 * math.pi) * ratio) * -torch.expm1(-ratio.square() / 2)
    return (1 - 2 * tail - flat).to(distance.dtype)


class E2LSH:
    """Tables of points hashed so that close ones share a bucket: ``h(v) = ⌊(gᵀv + b) / w⌋``, several at once [047].

    Args:
        in_features: d.
        width: w, the cells' width.
        num_hashes: cells that must be shared for two points to share a bucket.
        num_tables: chances that a pair has.
        max_bucket: keys of a bucket that a query is compared with at most; what is cut is counted in ``dropped``.
        seed: fixes every draw.

    Raises:
        ValueError: if a size is below one or the width not positive.
    """

    def __init__(
        self,
        in_features: int,
        width: float,
        num_hashes: int,
        num_tables: int,
        *,
        max_bucket: int = 4096,
        seed: int = 0,
    ) -> None:
        if min(in_features, num_hashes, num_tables, max_bucket) < 1 or not width > 0:
            raise ValueError(
                f"E2LSH needs sizes ≥ 1 and width > 0, got in_features={in_features}, num_hashes={num_hashes}, "
                f"num_tables={num_tables}, max_bucket={max_bucket}, width={width}"
            )
        self.in_features, self.width, self.num_hashes, self.num_tables = in_features, width, num_hashes, num_tables
        self.max_bucket, self.seed = max_bucket, seed
        self.dropped = 0
        self.compared = 0

    def inclusion(self, distance: Tensor) -> Tensor:
        """The probability ``1 − (1 − P(r)^k)^L`` that a pair meets in a bucket.

        Args:
            distance: r.
        """
        together = collision_probability(distance, self.width) ** self.num_hashes
        return -torch.expm1(self.num_tables * torch.log1p(-together.clamp_max(1 - 1e-7)))

    def codes(self, points: Float[Tensor, "n d"], table: int) -> Int64[Tensor, "n"]:
        """The bucket of every point in one table.

        Args:
            points: what is hashed.
            table: which table.
        """
        generator = block_generator(self.seed, table)
        lines = torch.randn(self.in_features, self.num_hashes, generator=generator, dtype=torch.float64)
        offsets = torch.rand(self.num_hashes, generator=generator, dtype=torch.float64)
        mix = torch.randint(-(2**62), 2**62, (self.num_hashes,), generator=generator) * 2 + 1
        lines, offsets = (t.to(points.device, points.dtype) for t in (lines / self.width, offsets))
        cells = torch.floor(points @ lines + offsets).to(torch.int64)
        return (cells * mix.to(points.device)).sum(1)  # wraps around, as a hash may

    def candidates(
        self, queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"]
    ) -> Iterator[tuple[Int64[Tensor, "p"], Int64[Tensor, "p"]]]:
        """Pairs that share a bucket, table after table; a pair may come again.

        Args:
            queries: points.
            keys: other points.

        Yields:
            ``(row, col)``, at most about a million pairs at once.
        """
        for table in range(self.num_tables):
            sorted_codes, order = torch.sort(self.codes(keys, table))
            codes = self.codes(queries, table)
            low = torch.searchsorted(sorted_codes, codes)
            count = torch.searchsorted(sorted_codes, codes, right=True) - low
            self.dropped += int((count - self.max_bucket).clamp_min(0).sum())
            yield from _expand(low, count.clamp_max(self.max_bucket), order)

    def pairs(self, queries: Tensor, keys: Tensor, radius: float, max_pairs: int) -> NearPairs:
        """The candidates within the radius.

        Args:
            queries: ``(n, d)``.
            keys: ``(m, d)``.
            radius: the largest distance.
            max_pairs: how many may be held.
        """
        found = PairCollector(len(keys), radius, max_pairs)
        self.dropped = self.compared = 0
        for row, col in self.candidates(queries, keys):
            self.compared += len(row)
            # index_select copies rows whole, several times as fast as indexing.
            between = queries.index_select(0, row).sub_(keys.index_select(0, col))
            found.add(row, col, torch.linalg.vecdot(between, between))
        row, col, squared, reached = found.result(queries)
        return NearPairs(row, col, squared, self.inclusion(squared.sqrt()), reached, self.dropped + found.dropped)


def _expand(low: Tensor, count: Tensor, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Every query with every key of its run, in portions.

    Yields:
        queries and keys of some pairs.
    """
    queries = count.nonzero()[:, 0]
    low, count = low[queries], count[queries]
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    # Cut where the running sum passes a multiple of the portion: a run is never split.
    marks = torch.arange(_CANDIDATES, max(total, _CANDIDATES), _CANDIDATES, device=ends.device)
    cuts = [0, *torch.searchsorted(ends, marks, right=True).unique().tolist(), len(ends)]
    for first, last in itertools.pairwise(cuts):
        sizes = count[first:last]
        if not int(sizes.sum()):
            continue
        rows = torch.repeat_interleave(torch.arange(first, last, device=low.device), sizes)
        starts = sizes.cumsum(0) - sizes
        within = torch.arange(len(rows), device=low.device) - starts[rows - first]
        yield queries[rows], order[low[rows] + within]


class LSHSearch:
    """Most pairs, by E2LSH that is sized to the data: width, hashes and tables of the least expected work [047].

    Distances of a sample say how many far pairs would share a bucket; pairs at the radius are found with probability
    ``1 − miss``, closer ones more surely. What is missed costs variance, never bias.

    Args:
        miss: the chance to miss a pair at the radius.
        seed: fixes every draw.

    Raises:
        ValueError: if ``miss`` is not in (0, 1).
    """

    def __init__(self, miss: float = 0.02, *, seed: int = 0) -> None:
        if not 0 < miss < 1:
            raise ValueError(f"LSHSearch needs miss in (0, 1), got {miss}")
        self.miss, self.seed = miss, seed

    def plan(self, queries: Float[Tensor, "n d"], keys: Float[Tensor, "m d"], radius: float) -> E2LSH:
        """The tables of the least expected work.

        Args:
            queries: points.
            keys: other points.
            radius: the distance at which ``miss`` holds.
        """
        (n, d), m = queries.shape, len(keys)
        if not n or not m:  # nothing to find, and no distance to size by
            return E2LSH(d, radius or 1.0, 1, 1, seed=self.seed)
        generator = block_generator(self.seed, -1)
        sample = [p[torch.randint(len(p), (512,), generator=generator).to(p.device)] for p in (queries, keys)]
        distances = squared_distances(sample[0], sample[1], radius).sqrt().flatten().double()
        if not radius:  # equal points share every cell: sized to tell apart what is not equal
            radius = 1e-3 * float(distances.max()) or 1.0
        at_radius = torch.tensor(float(radius), dtype=torch.float64)
        best: tuple[float, float, int, int] | None = None
        for width in (radius * factor for factor in (1.0, 2.0, 4.0, 8.0)):
            near, far = float(collision_probability(at_radius, width)), collision_probability(distances, width)
            for hashes in range(1, 33):
                tables = math.ceil(math.log(1 / self.miss) / near**hashes)
                if tables > _MAX_TABLES and best is not None:
                    break
                meetings = n * m * float((far**hashes).mean())
                # In units of one multiplication: hashing, sorting and looking up, comparing.
                work = min(tables, _MAX_TABLES) * ((n + m) * (hashes * d + 300) + meetings * (4 * d + 40))
                if best is None or work < best[0]:
                    best = (work, width, hashes, min(tables, _MAX_TABLES))
        assert best is not None
        return E2LSH(d, best[1], best[2], best[3], seed=self.seed)

    def pairs(self, queries: Tensor, keys: Tensor, radius: float, max_pairs: int) -> NearPairs:
        """The pairs found by the planned tables.

        Args:
            queries: ``(n, d)``.
            keys: ``(m, d)``.
            radius: the largest distance.
            max_pairs: how many may be held.
        """
        return self.plan(queries, keys, radius).pairs(queries, keys, radius, max_pairs)
