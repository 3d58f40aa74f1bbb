"""Searches for the pairs of queries and keys within a radius."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.kernels.gaussian_products.dense import BLOCK_ENTRIES, squared_distances


@dataclass(frozen=True)
class NearPairs:
    """Pairs (i, j) of queries and keys, in the order of i, then j; no pair twice.

    Attributes:
        row: i.
        col: j.
        squared: ``‖qᵢ − kⱼ‖²``.
        inclusion: the probability that the search finds a pair at that distance.
        radius: what was searched within, less where the pairs would not fit.
        dropped: comparisons that a cap spared the search, and pairs at one distance that would not fit: of pairs lost
            so, ``inclusion`` and the radius know nothing.
    """

    row: Int64[Tensor, "p"]
    col: Int64[Tensor, "p"]
    squared: Float[Tensor, "p"]
    inclusion: Float[Tensor, "p"]
    radius: float
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.row)

    def to(self, device: torch.device) -> NearPairs:
        """The same pairs elsewhere."""
        row, col, squared, inclusion = (t.to(device) for t in (self.row, self.col, self.squared, self.inclusion))
        return replace(self, row=row, col=col, squared=squared, inclusion=inclusion)

    def swapped(self) -> NearPairs:
        """The same pairs with keys for queries."""
        order = torch.argsort(self.col, stable=True)
        row, col, squared, inclusion = (t[order] for t in (self.col, self.row, self.squared, self.inclusion))
        return replace(self, row=row, col=col, squared=squared, inclusion=inclusion)


@runtime_checkable
class NeighbourSearch(Protocol):
    """What a search is."""

    def pairs(self, queries: Tensor, keys: Tensor, radius: float, max_pairs: int) -> NearPairs:
        """Pairs within the radius, all or most of them; only the closest where they are too many.

        Args:
            queries: ``(n, d)``.
            keys: ``(m, d)``.
            radius: the largest distance.
            max_pairs: how many may be held; more shrink the radius.
        """
        ...  # a protocol: whoever fits it writes the body


class PairCollector:
    """Gathers pairs, drops repeats, and shrinks the radius when they are too many.

    Args:
        num_keys: m.
        radius: the radius at the start.
        max_pairs: how many may be held in the end.
    """

    def __init__(self, num_keys: int, radius: float, max_pairs: int) -> None:
        self.num_keys, self.squared_radius, self.max_pairs = num_keys, radius * radius, max_pairs
        self.dropped = 0
        self._codes: list[Tensor] = []
        self._squared: list[Tensor] = []
        self._held = 0

    def add(self, row: Tensor, col: Tensor, squared: Tensor) -> None:
        """Pairs that may repeat earlier ones; those beyond the radius are left out.

        Args:
            row: queries.
            col: keys.
            squared: squared distances.
        """
        keep = squared <= self.squared_radius
        self._codes.append(row[keep] * self.num_keys + col[keep])
        self._squared.append(squared[keep])
        self._held += len(self._codes[-1])
        if self._held > 2 * self.max_pairs:
            self._compact()

    def _compact(self) -> tuple[Tensor, Tensor]:
        codes, squared = torch.cat(self._codes), torch.cat(self._squared)
        codes, order = torch.sort(codes, stable=True)
        first = torch.ones_like(codes, dtype=torch.bool)
        first[1:] = codes[1:] != codes[:-1]
        codes, squared = codes[first], squared[order][first]
        if len(codes) > self.max_pairs:
            self.squared_radius = float(squared.kthvalue(self.max_pairs).values)
            keep = squared <= self.squared_radius
            if int(keep.sum()) > self.max_pairs:  # ties at the border: all of them go, though the radius covers them
                self.dropped += int((squared == self.squared_radius).sum())
                keep = squared < self.squared_radius
            codes, squared = codes[keep], squared[keep]
        self._codes, self._squared, self._held = [codes], [squared], len(codes)
        return codes, squared

    def result(self, like: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Rows, columns, squared distances and the radius in the end, rounded up.

        Args:
            like: gives dtype and device where there are no pairs.
        """
        if self._codes:
            codes, squared = self._compact()
        else:
            codes, squared = torch.zeros(0, dtype=torch.int64, device=like.device), like.new_zeros(0)
        row = torch.div(codes, self.num_keys, rounding_mode="floor")
        radius = math.nextafter(math.sqrt(self.squared_radius), math.inf)
        return row, codes - row * self.num_keys, squared, radius


class ExactSearch:
    """Every pair, by blocks of all distances: n · m · d, for a few ten thousand points or a GPU."""

    def pairs(self, queries: Tensor, keys: Tensor, radius: float, max_pairs: int) -> NearPairs:
        """All pairs within the radius.

        Args:
            queries: ``(n, d)``.
            keys: ``(m, d)``.
            radius: the largest distance.
            max_pairs: how many may be held.
        """
        found = PairCollector(len(keys), radius, max_pairs)
        rows = max(1, BLOCK_ENTRIES // max(1, len(keys)))
        for start in range(0, len(queries), rows):
            squared = squared_distances(queries[start : start + rows], keys, radius)
            row, col = (squared <= found.squared_radius).nonzero(as_tuple=True)
            found.add(row + start, col, squared[row, col])
        row, col, squared, reached = found.result(queries)
        return NearPairs(row, col, squared, torch.ones_like(squared), reached, found.dropped)


class KDTreeSearch:
    """Every pair, by SciPy's k-d trees: for up to about ten dimensions, on the CPU."""

    def pairs(self, queries: Tensor, keys: Tensor, radius: float, max_pairs: int) -> NearPairs:
        """All pairs within the radius.

        Args:
            queries: ``(n, d)``.
            keys: ``(m, d)``.
            radius: the largest distance.
            max_pairs: how many may be held.
        """
        from scipy.spatial import KDTree

        found = PairCollector(len(keys), radius, max_pairs)
        tree, points = KDTree(keys.cpu().numpy()), queries.cpu().numpy()
        rows = 4096
        for start in range(0, len(points), rows):
            block = KDTree(points[start : start + rows])
            near = block.sparse_distance_matrix(tree, found.squared_radius**0.5, output_type="ndarray")
            row, col, distance = (torch.from_numpy(near[name].copy()).to(queries.device) for name in ("i", "j", "v"))
            found.add(row + start, col, distance.to(queries.dtype).square())
        row, col, squared, reached = found.result(queries)
        return NearPairs(row, col, squared, torch.ones_like(squared), reached, found.dropped)
