"""Where the files of the data sets are: a local folder, or a download, checked by SHA-256 either way.

``files.json`` lists every file with its checksum; ``url`` stands there only where the file at that address, at that
commit, holds the same data.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import os
from importlib import resources
from pathlib import Path

from tangrams.data.errors import DataNotFoundError

FOLDER = "TANGRAMS_DATA"
"""The environment variable that names the local folder. While it is set, nothing is downloaded."""


@functools.cache
def table() -> dict[str, dict[str, str]]:
    """File → its ``sha256`` in the local folder, and ``url`` and ``url_sha256`` where it can be downloaded."""
    return json.loads(resources.files("tangrams.data").joinpath("files.json").read_text())


def read(name: str) -> bytes:
    """The bytes of a file of the table, decompressed.

    Args:
        name: such as ``"mnist/t10k-images-idx3-ubyte.gz"``.

    Raises:
        DataNotFoundError: if it is not there or not the file it should be; says how to get it.
    """
    entry = table()[name]
    folder = os.environ.get(FOLDER)
    if folder:
        path = Path(folder).expanduser() / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataNotFoundError(f"{path} cannot be read ({error.strerror}): {_how(name)}") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise DataNotFoundError(f"{path} is not the file it should be, its SHA-256 differs: {_how(name)}")
        return gzip.decompress(data) if name.endswith(".gz") else data
    if "url" not in entry:
        raise DataNotFoundError(f"{name} is on no public server in this form: {_how(name)}")
    data = _download(name).read_bytes()
    return gzip.decompress(data) if entry["url"].endswith(".gz") else data


def _download(name: str) -> Path:
    import pooch

    entry = table()[name]
    try:
        got = pooch.retrieve(
            entry["url"],
            known_hash=f"sha256:{entry['url_sha256']}",
            fname=name.replace("/", "--") + (".gz" if entry["url"].endswith(".gz") else ""),
            path=pooch.os_cache("tangrams"),
        )
    except Exception as error:  # whatever the network answers
        raise DataNotFoundError(
            f"{name} could not be downloaded from {entry['url']} ({error}): {_how(name)}"
        ) from error
    return Path(got)


def _how(name: str) -> str:
    entry = table()[name]
    source = f", it is at {entry['url']}" if "url" in entry else ""
    return f"set {FOLDER} to a folder that holds {name} with SHA-256 {entry['sha256']}{source}" + (
        f"; without {FOLDER} it is downloaded" if "url" in entry else ""
    )
