"""The manifest: one line per finished block with the checksum of each of its chunk files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from tangrams.store.header import Header

NAME = "features/manifest.jsonl"
"""Inside the array's folder, where Zarr does not look for members of the group."""


def checksum(data: bytes) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def manifest_line(header: Header, block: int, checksums: list[str]) -> bytes:
    """The line of a finished block; it vouches for itself and for the store it belongs to."""
    seal = hashlib.sha256(f"{header.digest} {block} {' '.join(checksums)}".encode()).hexdigest()
    document = {"block": block, "sha256": checksums, "line": seal}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


@dataclass
class Manifest:
    """The finished blocks of a store.

    Attributes:
        entries: block → the checksums of its chunk files, in the order of :meth:`StoreSpec.keys`.
        damaged: the numbers of lines that are not as they were written.
        length: bytes up to the end of the last whole line; a cut last line is no damage, its block is unfinished.
    """

    entries: dict[int, list[str]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    length: int = 0

    @classmethod
    def from_bytes(cls, data: bytes, header: Header) -> Manifest:
        """Read a manifest of any origin; nothing in it is believed that its seals do not cover."""
        manifest = cls(length=data.rfind(b"\n") + 1)
        for number, line in enumerate(data[: manifest.length].splitlines(keepends=True), start=1):
            entry = _entry(line, header)
            if entry is None:
                manifest.damaged.append(number)
            else:
                manifest.entries[entry[0]] = entry[1]
        return manifest

    def to_bytes(self, header: Header) -> bytes:
        """All lines, in the order of the blocks."""
        return b"".join(manifest_line(header, block, self.entries[block]) for block in sorted(self.entries))


def _entry(line: bytes, header: Header) -> tuple[int, list[str]] | None:
    try:
        document: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    block, checksums = document.get("block"), document.get("sha256")
    if type(block) is not int or not 0 <= block < header.spec.blocks:
        return None
    if not isinstance(checksums, list) or len(checksums) != header.spec.chunks_per_block:
        return None
    if not all(isinstance(value, str) for value in checksums):
        return None
    if manifest_line(header, block, checksums) != line:
        return None
    return block, checksums
