"""One block of memory that is used again and again.

Fresh pages cost 0.2 to 0.4 ms per MiB, as much as the arithmetic on them: what a Gram matrix writes and forgets is
carved from an arena that stays with the feature map.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

KEEP = 128 << 20
"""Bytes that an arena keeps between calls at most."""

_ALIGN = 64


class Workspace:
    """An arena: pieces are taken in turn and all given back at once.

    Pieces that do not fit are allocated by themselves, and the arena grows to fit next time, up to :data:`KEEP`.
    """

    def __init__(self) -> None:
        self._arena: Tensor | None = None
        self._used = 0
        self._wanted = 0
        self._busy = False

    def __deepcopy__(self, memo: dict[int, object]) -> Workspace:
        return Workspace()

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        return (Workspace, ())

    @contextmanager
    def frame(self) -> Iterator[Workspace]:
        """A scope whose pieces are given back at its end; a nested or concurrent one gets an arena of its own.

        Yields:
            The workspace to take pieces from.
        """
        if self._busy:
            yield Workspace()
            return
        self._busy, self._used, self._wanted = True, 0, 0
        try:
            yield self
        finally:
            self._busy = False
            held = 0 if self._arena is None else self._arena.numel()
            if held < self._wanted <= KEEP:
                self._arena = None
                self._arena = torch.empty(self._wanted, dtype=torch.uint8)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Pieces taken inside are given back at its end.

        Yields:
            Nothing.
        """
        mark = self._used
        try:
            yield
        finally:
            self._used = mark

    def empty(self, *shape: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """An uninitialised tensor."""
        size = math.prod(shape) * dtype.itemsize
        start = -(-self._used // _ALIGN) * _ALIGN
        self._used = start + size
        self._wanted = max(self._wanted, self._used)
        if self._arena is None or device.type != "cpu" or self._used > self._arena.numel():
            return torch.empty(shape, dtype=dtype, device=device)
        return self._arena[start : start + size].view(dtype).view(shape)
