"""A hash table that adds up values by key, all keys at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int64, Num
from torch import Tensor

_EMPTY = torch.iinfo(torch.int64).max

Hash = Callable[[Tensor, int], Tensor]
"""``(keys, bits) → slots`` in a table of 2^bits."""


class TableFullError(RuntimeError):
    """More keys than slots: take a table twice as large."""


def high_bits(keys: Int64[Tensor, "p"], bits: int) -> Int64[Tensor, "p"]:
    """Fibonacci hashing: the high bits of a product, which depend on all bits of the key.

    Args:
        keys: what is hashed.
        bits: of the table's size.
    """
    return ((keys * -0x61C8864680B583EB) >> (64 - bits)) & ((1 << bits) - 1)


def low_bits(keys: Int64[Tensor, "p"], bits: int) -> Int64[Tensor, "p"]:
    """The low bits of the key: neighbouring columns fall into neighbouring slots.

    Args:
        keys: what is hashed.
        bits: of the table's size.
    """
    return keys & ((1 << bits) - 1)


class HashAccumulator:
    """Adds values by key in an open table with linear probing, a round for all keys at a time [096].

    In a round every unresolved key looks at its slot. Empty slots are claimed, the smallest key first, so that a round
    has one outcome on any device; keys that find themselves add their value (duplicates together), the others move to
    the next slot. There are as many rounds as the longest probe: keep the load at one half or below.

    Args:
        capacity: slots, a power of two.
        like: gives dtype and device of the values.
        hash: where probing starts: :func:`high_bits` or :func:`low_bits`.

    Raises:
        ValueError: if the capacity is not a power of two.
    """

    def __init__(self, capacity: int, like: Tensor, *, hash: Hash = high_bits) -> None:
        if capacity < 1 or capacity & (capacity - 1):
            raise ValueError(f"HashAccumulator needs a power of two as its capacity, got {capacity}")
        self.capacity, self.hash = capacity, hash
        self.tags = torch.full((capacity,), _EMPTY, dtype=torch.int64, device=like.device)
        self.values = torch.zeros(capacity, dtype=like.dtype, device=like.device)
        self.probes = 0
        self.rounds = 0

    def insert_add(self, keys: Int64[Tensor, "p"], values: Num[Tensor, "p"]) -> None:
        """Add values to their keys, which are at least zero.

        Args:
            keys: in any order, repeats allowed.
            values: one for each.

        Raises:
            TableFullError: if the keys do not fit; the table is of no use then.
        """
        bits = self.capacity.bit_length() - 1
        slots = self.hash(keys, bits) if bits else torch.zeros_like(keys)
        for _ in range(self.capacity):
            if not len(keys):
                return
            self.probes += len(keys)
            self.rounds += 1
            empty = self.tags[slots] == _EMPTY
            self.tags.scatter_reduce_(0, slots[empty], keys[empty], "amin")
            found = self.tags[slots] == keys
            self.values.index_add_(0, slots[found], values[found])
            others = ~found
            keys, values, slots = keys[others], values[others], (slots[others] + 1) & (self.capacity - 1)
        if len(keys):
            raise TableFullError(f"a hash table of {self.capacity} slots is full with {len(keys)} values left")

    def drain(self) -> tuple[Int64[Tensor, "q"], Num[Tensor, "q"]]:
        """Keys in ascending order, and their sums."""
        slots = (self.tags != _EMPTY).nonzero()[:, 0]
        keys, order = torch.sort(self.tags[slots])
        return keys, self.values[slots][order]
