"""Who is nearest to whom while centres are added one by one: what farthest-point methods share."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Nearest:
    """Each sample's nearest centre so far, and how far it is; on ties the earlier centre keeps the sample.

    Args:
        n: how many samples.
        like: gives dtype and device.

    Attributes:
        distance: to the nearest centre, infinite before there is one: ``(n,)``.
        centre: its number, 0 for the first: ``(n,)``.
    """

    def __init__(self, n: int, like: Tensor) -> None:
        self.distance = torch.full((n,), torch.inf, dtype=like.dtype, device=like.device)
        self.centre = torch.zeros(n, dtype=torch.int64, device=like.device)

    def attach(self, distance: Float[Tensor, "n"], centre: int) -> None:
        """Hand over to a new centre whoever is strictly nearer to it.

        Args:
            distance: of every sample to it; any monotone function of the distance, always the same.
            centre: its number.
        """
        closer = distance < self.distance
        self.centre.masked_fill_(closer, centre)
        torch.minimum(self.distance, distance, out=self.distance)

    def attach_all(self, distances: Float[Tensor, "n k"], first: int) -> None:
        """Hand over to k new centres, numbered from ``first``: as if they came one after another.

        Args:
            distances: of every sample to each.
            first: the number of the first of them.
        """
        nearest: tuple[Float[Tensor, "n"], Int64[Tensor, "n"]] = distances.min(1)
        closer = nearest[0] < self.distance
        self.centre = torch.where(closer, nearest[1] + first, self.centre)
        torch.minimum(self.distance, nearest[0], out=self.distance)
