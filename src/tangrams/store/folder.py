"""Files under one address: a local folder with durable, atomic writes, or anything that fsspec reaches."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tangrams.store.errors import CorruptStoreError, StoreReadError, StoreWriteError

PARTIAL = ".partial"
"""Ending of a file that is still being written."""


@runtime_checkable
class Folder(Protocol):
    """Named files; a name is a relative path with slashes."""

    url: str

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes; ``FileNotFoundError`` if there is none."""
        ...  # a protocol: whoever fits it writes the body

    def names(self) -> list[str]:
        """Every file, in alphabetical order; empty if the folder does not exist."""
        ...  # a protocol: whoever fits it writes the body

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file, whole or not at all."""
        ...  # a protocol: whoever fits it writes the body

    def extend(self, name: str, length: int, data: bytes) -> None:
        """Cut a file to ``length`` bytes and append."""
        ...  # a protocol: whoever fits it writes the body

    def settle(self, names: list[str]) -> None:
        """Return when the directory entries of these files are on the disk."""
        ...  # a protocol: whoever fits it writes the body

    def remove(self, name: str) -> None:
        """Delete a file."""
        ...  # a protocol: whoever fits it writes the body


def open_folder(url: str | os.PathLike[str]) -> LocalFolder | RemoteFolder:
    """The folder at a local path, a ``file://`` address, or any address that fsspec understands.

    Args:
        url: a path, or an address such as ``"memory://features.zarr"``.
    """
    text = os.fspath(url)
    if text.startswith("file://"):
        text = text.removeprefix("file://")
    if "://" in text or "::" in text:
        return RemoteFolder(text)
    return LocalFolder(text)


class LocalFolder:
    """A directory of this machine.

    Args:
        path: the directory; it need not exist.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path).expanduser().absolute()
        self.url = str(self.path)

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes.

        Args:
            name: the file.
            limit: no sane file of that name is longer.

        Raises:
            FileNotFoundError: if there is none.
            CorruptStoreError: if it is longer.
            StoreReadError: if it cannot be read.
        """
        try:
            status = os.stat(self.path / name)
            if not stat.S_ISREG(status.st_mode):
                raise CorruptStoreError(f"{self.url}/{name} is no regular file")
            if status.st_size > limit:
                raise CorruptStoreError(f"{self.url}/{name} is longer than {limit} bytes: not what was written")
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"{self.url}/{name}") from None
        except OSError as error:
            raise StoreReadError(f"{self.url}/{name} cannot be read: {error}") from error

    def names(self) -> list[str]:
        """Every file below, in alphabetical order."""
        found = (p for p in self.path.rglob("*") if not p.is_dir())
        return sorted(p.relative_to(self.path).as_posix() for p in found)

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file: written beside it, flushed to the disk, then renamed."""
        target = self.path / name
        partial = target.with_name(target.name + PARTIAL)
        with _reported(f"{self.url}/{name}"):
            os.makedirs(target.parent, exist_ok=True)
            _write(partial, data, 0)
            os.replace(partial, target)

    def extend(self, name: str, length: int, data: bytes) -> None:
        """Cut a file to ``length`` bytes, append, and flush to the disk."""
        with _reported(f"{self.url}/{name}"):
            _write(self.path / name, data, length)

    def settle(self, names: list[str]) -> None:
        """Flush the directories that these files are in; of a file at the top also the one above."""
        folders = {(self.path / name).parent for name in names}
        if self.path in folders:
            folders.add(self.path.parent)
        for folder in sorted(folders):
            with _reported(f"the folder {folder} of {self.url}"):
                handle = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)

    def remove(self, name: str) -> None:
        """Delete a file."""
        with _reported(f"{self.url}/{name}"):
            os.remove(self.path / name)


class RemoteFolder:
    """A folder that fsspec reaches; one writer at a time is the caller's promise.

    Args:
        url: an address such as ``"s3://bucket/features.zarr"`` or ``"zip://features.zarr::archive.zip"``.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        try:
            self.fs, path = url_to_fs(url)
        except Exception as error:  # whatever the file system's driver raises
            raise StoreReadError(f"{url} cannot be opened: {type(error).__name__}: {error}") from error
        self.path = path.rstrip("/")

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def read(self, name: str, limit: int) -> bytes:
        """A file's bytes.

        Args:
            name: the file.
            limit: no sane file of that name is longer.

        Raises:
            FileNotFoundError: if there is none.
            CorruptStoreError: if it is longer.
            StoreReadError: if it cannot be read.
        """
        try:
            data = self.fs.cat_file(self._at(name))
        except (FileNotFoundError, KeyError, NotADirectoryError):
            raise FileNotFoundError(f"{self.url}/{name}") from None
        except Exception as error:  # whatever the file system's driver raises
            raise StoreReadError(f"{self.url}/{name} cannot be read: {type(error).__name__}: {error}") from error
        if len(data) > limit:
            raise CorruptStoreError(f"{self.url}/{name} is longer than {limit} bytes: not what was written")
        return bytes(data)

    def names(self) -> list[str]:
        """Every file below, in alphabetical order."""
        try:
            found: list[Any] = list(self.fs.find(self.path))
        except FileNotFoundError:
            return []
        except Exception as error:  # whatever the file system's driver raises
            raise StoreReadError(f"{self.url} cannot be listed: {type(error).__name__}: {error}") from error
        prefix = self.path.lstrip("/")
        return sorted(name.lstrip("/").removeprefix(prefix).lstrip("/") for name in found)

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file in one put."""
        with _reported(f"{self.url}/{name}"):
            try:
                self.fs.pipe_file(self._at(name), data)
            except FileNotFoundError:  # a file system with real folders
                self.fs.makedirs(self._at(name).rpartition("/")[0], exist_ok=True)
                self.fs.pipe_file(self._at(name), data)

    def extend(self, name: str, length: int, data: bytes) -> None:
        """Put a file again with ``data`` behind its first ``length`` bytes: object stores cannot append."""
        with _reported(f"{self.url}/{name}"):
            before = bytes(self.fs.cat_file(self._at(name)))[:length]
            self.fs.pipe_file(self._at(name), before + data)

    def settle(self, names: list[str]) -> None:
        """Nothing to do: a put is there when it returns."""

    def remove(self, name: str) -> None:
        """Delete a file."""
        with _reported(f"{self.url}/{name}"):
            self.fs.rm_file(self._at(name))


def _write(path: Path, data: bytes, start: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.ftruncate(handle, start)
        os.lseek(handle, start, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _reported(where: str) -> Iterator[None]:
    """Every failed write is a :class:`StoreWriteError` that keeps the system's error number."""
    try:
        yield
    except Exception as error:  # OSError here; whatever the driver raises on other file systems
        raise StoreWriteError(
            f"{where} could not be written ({error}): what was finished before is intact; "
            "make room or mend the cause and run the same extraction again, it continues",
            getattr(error, "errno", None),
        ) from error
