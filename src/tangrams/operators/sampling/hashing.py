"""A hash of keys to uniform numbers that every machine computes alike."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def as_keys(keys: Any) -> np.ndarray:
    """Keys as an int64 or a string array, of no keys int64.

    Args:
        keys: integers or strings, one-dimensional.

    Raises:
        ValueError: if they are anything else.
    """
    found = keys.detach().cpu().numpy() if isinstance(keys, Tensor) else np.asarray(keys)
    if found.ndim == 1 and (found.dtype.kind in "iu" or not len(found)):
        return found.astype(np.int64)
    if found.ndim == 1 and (found.dtype.kind == "U" or all(isinstance(key, str) for key in found)):
        return found.astype(str)
    raise ValueError(f"keys are integers or strings, one-dimensional, got {found.dtype} of shape {found.shape}")


def uniform_hash(keys: Any, seed: int) -> Float[np.ndarray, "n"]:
    """Numbers in (0, 1], uniform over seeds, that depend on nothing but key and seed: not on platform or order.

    Integers pass the finaliser of SplitMix64 (Steele, Lea and Flood, 2014) twice, once for the seed; strings are
    brought to 64 bits by BLAKE2b before.

    Args:
        keys: integers or strings.
        seed: shared by all who want the same numbers.

    Example:
        >>> [round(float(u), 4) for u in uniform_hash([1, 2, 10**12], seed=0)]
        [0.6172, 0.2415, 0.5841]
    """
    keys = as_keys(keys)
    if keys.dtype.kind == "U":
        digests = b"".join(hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest() for key in keys.tolist())
        words = np.frombuffer(digests, dtype="<u8").astype(np.uint64)
    else:
        words = keys.view(np.uint64)
    start = _mix(np.array([seed & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64) + _GOLDEN)
    mixed = _mix(words ^ start)
    return ((mixed >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
