"""A memo of the last Gram matrices of a network, by the content of everything they depend on."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from tangrams.data.samples import hash_sample


class GramMemo:
    """The last few answers, by key; answers are handed out as copies.

    GPyTorch evaluates a kernel again at every training step and several times for one prediction, on slices that are
    new tensors each time. Identity and version counters would miss those, and would miss writes through ``.data``:
    keys are therefore digests of contents, which cost far less than the gradients of one sample batch.

    Args:
        size: answers kept.
    """

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __call__(self, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """The answer for ``key``, computed unless it is kept."""
        if key not in self._kept:
            answer = compute()
            self._kept[key] = answer
            if len(self._kept) > self.size:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key].clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> GramMemo:
        return GramMemo(self.size)  # answers are not worth copying

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return type(self), (self.size,)


def content(x: Any) -> str:
    """A digest of tensors in tuples and dicts: structure, dtypes, shapes and values."""
    digest = hashlib.sha256()
    hash_sample(x, digest)
    return digest.hexdigest()
