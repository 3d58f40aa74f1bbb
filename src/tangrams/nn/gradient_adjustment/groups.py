"""Partitions of points into groups of neighbours [016]."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class GroupPartition:
    """Which points are neighbours: row i of ``index`` lists the members of group i.

    Groups at the rim may be smaller; their missing members are −1. Points in no group are left alone.

    Attributes:
        index: points, or −1.
        num_points: how many there are in all.
    """

    index: Int[Tensor, "g p"]
    num_points: int

    def __post_init__(self) -> None:
        members = self.index[self.index >= 0]
        if not len(members) or int(members.max()) >= self.num_points or len(members.unique()) < len(members):
            raise ValueError(f"GroupPartition expects each of {self.num_points} points in one group at most")
        if bool((self.index < 0).all(1).any()):
            raise ValueError("GroupPartition expects groups with at least one member")

    @classmethod
    def sequence(cls, n: int, size: int) -> GroupPartition:
        """Runs of ``size`` points; the last may be shorter.

        Args:
            n: points.
            size: of a run.

        Raises:
            ValueError: if a number is below one.

        Example:
            >>> GroupPartition.sequence(5, 2).index
            tensor([[ 0,  1],
                    [ 2,  3],
                    [ 4, -1]])
        """
        if min(n, size) < 1:
            raise ValueError(f"GroupPartition.sequence expects numbers ≥ 1, got {n} points in runs of {size}")
        index = torch.arange(math.ceil(n / size) * size).reshape(-1, size)
        return cls(torch.where(index < n, index, -1), n)

    @classmethod
    def image(cls, height: int, width: int, patch: int) -> GroupPartition:
        """Square patches of an image whose pixels are numbered row by row; those at the rim may be smaller.

        Args:
            height: rows.
            width: columns.
            patch: side of a patch.

        Raises:
            ValueError: if a number is below one.
        """
        if min(height, width, patch) < 1:
            raise ValueError(f"GroupPartition.image expects sizes ≥ 1, got {height} × {width} in patches of {patch}")
        rows = torch.arange(math.ceil(height / patch) * patch).reshape(-1, 1, patch, 1)
        columns = torch.arange(math.ceil(width / patch) * patch).reshape(1, -1, 1, patch)
        inside = (rows < height) & (columns < width)
        return cls(torch.where(inside, rows * width + columns, -1).flatten(2).flatten(0, 1), height * width)

    @classmethod
    def volume(cls, shape: Sequence[int], size: int) -> GroupPartition:
        """Runs of ``size`` points of a volume, in the order in which it is stored.

        Args:
            shape: of the volume.
            size: of a run.
        """
        return cls.sequence(math.prod(shape), size)

    def complete(self) -> GroupPartition:
        """The groups without missing members; the points of the others are left alone."""
        return GroupPartition(self.index[(self.index >= 0).all(1)], self.num_points)

    def to(self, device: torch.device | str) -> GroupPartition:
        """The partition on a device."""
        return GroupPartition(self.index.to(device), self.num_points)

    def __len__(self) -> int:
        return len(self.index)

    def apply(self, S: Float[Tensor, "g g"], values: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
        """``S`` over the groups, for the members at each place by themselves; values in no group are kept.

        A missing member counts as zero.

        Args:
            S: mixes groups.
            values: at the points.
        """
        present = self.index >= 0
        grouped = values[self.index.clamp_min(0)] * present[..., None]
        mixed = torch.einsum("ij,jpc->ipc", S.to(values.dtype), grouped)
        return values.index_put((self.index[present],), mixed[present])
