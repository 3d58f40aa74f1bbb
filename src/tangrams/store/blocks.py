"""Reading blocks: every byte is checked against the manifest before it is believed."""

from __future__ import annotations

import numpy as np

from tangrams.store.codec import NUMPY, decode, encoded_limit
from tangrams.store.errors import CorruptStoreError, IncompleteStoreError
from tangrams.store.folder import Folder
from tangrams.store.header import HEADER_LIMIT, Header
from tangrams.store.layout import ArrayLayout
from tangrams.store.manifest import NAME, Manifest, checksum

AGAIN = "run the same extraction again, it computes just what is missing"


def read_manifest(folder: Folder, header: Header) -> Manifest:
    """The manifest of a store; one that is gone vouches for no block."""
    limit = 4096 + header.spec.blocks * (256 + 80 * header.spec.chunks_per_block) * 16
    try:
        data = folder.read(NAME, limit)
    except FileNotFoundError:
        return Manifest()
    return Manifest.from_bytes(data, header)


def read_chunk(
    folder: Folder, manifest: Manifest, header: Header, array: ArrayLayout, block: int, strip: int
) -> np.ndarray:
    """One chunk as it was written, or an error.

    Args:
        folder: where the store is.
        manifest: its finished blocks.
        header: what it is.
        array: which array.
        block: which block.
        strip: which chunk of the block.

    Raises:
        IncompleteStoreError: if the block was never finished.
        CorruptStoreError: if the file is missing or is not what was written.
    """
    where = f"{folder.url}/{array.key(block, strip)}"
    if block not in manifest.entries:
        if manifest.damaged:
            raise CorruptStoreError(
                f"block {block} of {folder.url} is not vouched for: line {manifest.damaged[0]} of the manifest is "
                f"damaged; {AGAIN}",
                [block],
            )
        raise IncompleteStoreError(
            f"{folder.url} has {len(manifest.entries)} of {header.spec.blocks} blocks, not block {block}: {AGAIN}"
        )
    before = 0
    for other in header.spec.arrays:
        if other.name == array.name:
            break
        before += other.strips
    try:
        data = folder.read(array.key(block, strip), encoded_limit(array.chunk_bytes))
    except FileNotFoundError:
        raise CorruptStoreError(f"{where} is missing: {AGAIN}", [block]) from None
    if checksum(data) != manifest.entries[block][before + strip]:
        raise CorruptStoreError(f"{where} is not as it was written, its SHA-256 differs: {AGAIN}", [block])
    try:
        return decode(data, array.chunk_shape, NUMPY[array.dtype])
    except CorruptStoreError as error:
        raise CorruptStoreError(f"{where}: {error}", [block]) from error


def damaged_blocks(folder: Folder, manifest: Manifest, header: Header) -> list[int]:
    """The finished blocks of which some byte is not as it was written; reads the whole store."""
    bad = []
    for block in sorted(manifest.entries):
        try:
            for array, strip, _ in header.spec.keys(block):
                read_chunk(folder, manifest, header, array, block, strip)
        except CorruptStoreError:
            bad.append(block)
    return bad


def damaged_metadata(folder: Folder, header: Header) -> list[ArrayLayout]:
    """The arrays whose ``zarr.json`` is gone or changed."""
    return [array for array in header.spec.arrays if not _same(folder, array)]


def _same(folder: Folder, array: ArrayLayout) -> bool:
    try:
        return folder.read(f"{array.name}/zarr.json", HEADER_LIMIT) == array.metadata()
    except (FileNotFoundError, CorruptStoreError):
        return False
