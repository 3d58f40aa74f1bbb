"""Which samples to keep of a clustering: its heads, one of each cluster, or fewer of the largest."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


@runtime_checkable
class Clustered(Protocol):
    """A fitted clustering around heads."""

    labels_: np.ndarray
    heads_: np.ndarray
    similarity_: np.ndarray


def keep_heads(clusters: Clustered) -> Int[np.ndarray, "k"]:
    """The heads alone, ascending [022].

    Args:
        clusters: a fitted :class:`~tangrams.learners.FarthestPointClustering`.
    """
    return np.sort(clusters.heads_)


def keep_random_members(clusters: Clustered, *, random_state: int = 0) -> Int[np.ndarray, "k"]:
    """One random member of each cluster, ascending [022].

    Args:
        clusters: a fitted :class:`~tangrams.learners.FarthestPointClustering`.
        random_state: fixes the draw.
    """
    order = np.random.default_rng(random_state).permutation(len(clusters.labels_))
    _, first = np.unique(clusters.labels_[order], return_index=True)
    return np.sort(order[first])


def thin_largest(clusters: Clustered, fraction: float) -> Int[np.ndarray, "k"]:
    """Drop half of the largest cluster, again and again, until a fraction of all samples is gone [022].

    The half that goes are the members most similar to the head: learning the head teaches them. Heads stay. What is
    over-represented, the easy and common, is thinned first; the last step drops only what is still asked for.

    Args:
        clusters: a fitted :class:`~tangrams.learners.FarthestPointClustering`.
        fraction: the share of samples to drop, in [0, 1).

    Raises:
        ValueError: if the fraction is outside, or more than all samples that are no heads.
    """
    n, M = len(clusters.labels_), len(clusters.heads_)
    if not 0 <= fraction < 1:
        raise ValueError(f"thin_largest expects a fraction in [0, 1), got {fraction}")
    target = round(fraction * n)
    if target > n - M:
        raise ValueError(f"thin_largest cannot drop {target} of {n} samples: {M} are heads; ask for fewer clusters")
    others = np.ones(n, dtype=bool)
    others[clusters.heads_] = False
    # The members of each cluster that may go, the most similar to the head last: they are popped first.
    order = np.argsort(clusters.similarity_, kind="stable")
    stacks = [order[(clusters.labels_[order] == c) & others[order]].tolist() for c in range(M)]
    dropped: list[int] = []
    while len(dropped) < target:
        largest = max(stacks, key=len)
        half = max(1, (len(largest) + 1) // 2)
        for _ in range(min(half, target - len(dropped), len(largest))):
            dropped.append(largest.pop())
    return np.setdiff1d(np.arange(n), dropped)
