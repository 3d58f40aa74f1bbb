"""One writer at a time: a POSIX lock on a file in the store.

The system drops the lock when its process dies, so a dead writer never blocks; forked workers do not inherit it. The
system does not keep a process from locking twice, so that is kept here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

from tangrams.store.errors import StoreLockedError, StoreWriteError

NAME = "features/lock"
_HELD: set[tuple[int, int, int]] = set()
_GUARD = threading.Lock()


class WriterLock:
    """The right to write a store, held until :meth:`release` or the end of the process.

    Args:
        path: the store's folder.

    Raises:
        StoreLockedError: if another process, or another writer in this one, holds it.
        StoreWriteError: if the lock file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        import fcntl

        file = path / NAME
        try:
            os.makedirs(file.parent, exist_ok=True)
            with _GUARD:
                # Closing any handle of a file drops every lock this process has on it: look before opening.
                if file.exists() and _identity(os.stat(file)) in _HELD:
                    raise StoreLockedError(f"{path} is being written by this process already: close that writer first")
                self._handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
                try:
                    fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except (BlockingIOError, PermissionError) as error:  # what POSIX says of a lock that is held
                    owner = os.read(self._handle, 200).decode("utf-8", "replace").strip() or "another process"
                    os.close(self._handle)
                    raise StoreLockedError(
                        f"{path} is being written by {owner}: wait for it, or write to another path"
                    ) from error
                self._identity = _identity(os.fstat(self._handle))
                _HELD.add(self._identity)
        except StoreLockedError:
            raise
        except OSError as error:
            raise StoreWriteError(
                f"{file} could not be locked ({error}): a store needs a folder to write to", error.errno
            ) from error
        # Only for the other writer's error message: a full disk is reported by the first real write.
        with contextlib.suppress(OSError):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Empty the file and let the next writer in; nothing if done before."""
        if self._handle < 0:
            return
        with _GUARD:
            with contextlib.suppress(OSError):
                os.ftruncate(self._handle, 0)
            os.close(self._handle)
            self._handle = -1
            _HELD.discard(self._identity)


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino
