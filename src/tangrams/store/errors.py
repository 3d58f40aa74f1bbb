"""What can go wrong with a store, each as one type: ``StoreError`` catches all."""

from __future__ import annotations

from collections.abc import Sequence


class StoreError(Exception):
    """Base of everything that :mod:`tangrams.store` raises."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at that path."""


class StoreFormatError(StoreError, ValueError):
    """Not a feature store, damaged beyond its header, or written by an unknown version."""


class StoreMismatchError(StoreError, ValueError):
    """The store was made with another model, other data or other options than are asked for now.

    Args:
        message: what to tell.
        differences: one line per difference, ``name: there … here …``.
    """

    def __init__(self, message: str, differences: Sequence[str]) -> None:
        super().__init__(message)
        self.differences = tuple(differences)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.differences)


class StoreLockedError(StoreError, BlockingIOError):
    """Another writer holds the store."""


class StoreWriteError(StoreError, OSError):
    """The disk refused a write; what was written before is intact and the same extraction continues later.

    Args:
        message: what to tell.
        errno: the system's error number, if it gave one.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:
        return type(self), (str(self), self.errno)


class StoreReadError(StoreError, OSError):
    """A file of the store could not be read."""


class IncompleteStoreError(StoreError):
    """Blocks are missing: the extraction was not finished."""


class CorruptStoreError(StoreError, ValueError):
    """Bytes on disk are not those that were written.

    Args:
        message: what to tell.
        blocks: the damaged blocks, where they are known.
    """

    def __init__(self, message: str, blocks: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.blocks = tuple(blocks)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[int, ...]]]:
        return type(self), (str(self), self.blocks)


class StoredValueError(StoreError, ArithmeticError):
    """A feature is not finite, overflows the dtype that is stored, or a whole row vanishes in it.

    Args:
        message: what to tell.
        sample: the index of the first such sample in the dataset.
    """

    def __init__(self, message: str, sample: int) -> None:
        super().__init__(message)
        self.sample = sample

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.sample)
