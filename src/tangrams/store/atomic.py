"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path


@contextmanager
def replacing(path: str | PathLike[str]) -> Iterator[Path]:
    """A file to write beside another, whose place it takes, flushed to the disk, when the block ends.

    Where the block raises, or the process ends within it, the old file is as it was. What a block that raises has
    written is removed.

    Args:
        path: of the file to make or replace; of a link, what it leads to.

    Yields:
        A path in the same folder, with the same ending.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder, replacing(folder + "/a.txt") as partial:
        ...     partial.write_text("whole")
        5
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}{target.suffix}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
