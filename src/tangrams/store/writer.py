"""Writing a store: block by block, so that a run that dies at any moment continues to the same bytes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tangrams.store.blocks import damaged_blocks, damaged_metadata, read_manifest
from tangrams.store.codec import NUMPY, encode, to_numpy
from tangrams.store.errors import (
    CorruptStoreError,
    IncompleteStoreError,
    StoredValueError,
    StoreFormatError,
    StoreMismatchError,
)
from tangrams.store.folder import PARTIAL, Folder, LocalFolder, open_folder
from tangrams.store.header import HEADER_LIMIT, Header, differences
from tangrams.store.layout import ARRAYS, ArrayLayout, StoreSpec
from tangrams.store.lock import NAME as LOCK
from tangrams.store.lock import WriterLock
from tangrams.store.manifest import NAME as MANIFEST
from tangrams.store.manifest import Manifest, checksum, manifest_line

ROOT = "zarr.json"
_DESCRIPTIONS = {f"{name}/{ROOT}" for name in ARRAYS}
ENVIRONMENT = "environment"
"""The key of ``about`` that does not decide whether a store is the same: it is kept as it was first written."""


class StoreWriter:
    """The one writer of a store, new or begun before.

    A block is written as chunk files, each flushed to the disk under another name and renamed, then vouched for by
    a flushed line in the manifest. What a dead run left half-written is written again, to the same bytes. A local
    store is locked while its writer is open; use it as a context manager.

    Args:
        url: a local path or an fsspec address.
        spec: the shape of the store.
        about: what it is made from, as JSON data. Under ``"environment"`` stands what does not make it another
            store (versions, threads).

    Raises:
        StoreMismatchError: if there is a store made with another ``spec`` or ``about``; the differences are named.
        StoreFormatError: if something else is there.
        CorruptStoreError: if a store is there whose header is damaged and whose blocks are not of this extraction.
    """

    def __init__(self, url: str | os.PathLike[str], spec: StoreSpec, about: Mapping[str, Any]) -> None:
        self.folder: Folder = open_folder(url)
        self.url = self.folder.url
        wanted = Header.of(spec, about)
        self._agreed(wanted)  # before anything is touched
        self._lock = WriterLock(self.folder.path) if isinstance(self.folder, LocalFolder) else None
        try:
            header = self._agreed(wanted)
            self.header = wanted if header is None else header
            described = {f"{array.name}/{ROOT}" for array in self.spec.arrays}
            for name in self.folder.names():
                # what was half-written, and the beginnings of a store of another shape that never came to be
                if name.endswith(PARTIAL) or (name in _DESCRIPTIONS and name not in described):
                    self.folder.remove(name)
            for array in damaged_metadata(self.folder, self.header):
                self.folder.write(f"{array.name}/zarr.json", array.metadata())
            self.manifest = self._begin() if header is None else read_manifest(self.folder, self.header)
            if self.manifest.damaged:
                self._rewrite_manifest()
        except BaseException:
            self.close()
            raise

    @property
    def spec(self) -> StoreSpec:
        """The shape of the store."""
        return self.header.spec

    def missing_blocks(self) -> list[int]:
        """The blocks that are still to be written, by the manifest."""
        return [block for block in range(self.spec.blocks) if block not in self.manifest.entries]

    def drop_damaged_blocks(self) -> list[int]:
        """Read everything that was written; blocks that are not as they were written count as missing again.

        Returns:
            The blocks dropped.
        """
        bad = damaged_blocks(self.folder, self.manifest, self.header)
        for block in bad:
            del self.manifest.entries[block]
        if bad:
            self._rewrite_manifest()
        return bad

    def write_block(
        self,
        block: int,
        features: Tensor,
        *,
        targets: Tensor | None = None,
        outputs: Tensor | None = None,
        ids: Tensor | None = None,
    ) -> None:
        """Write one block, or write it again.

        Args:
            block: its number.
            features: rows of its samples, in any floating dtype.
            targets: of its samples, iff the store has targets.
            outputs: of its samples, iff the store has outputs.
            ids: of its samples; their indices by default, where ids are numbers.

        Shape:
            ``features`` (m · r, d), ``targets``, ``outputs`` and ``ids`` (m, …), for a block of m samples.

        Raises:
            ValueError: if a shape or dtype is not that of the store.
        """
        if not 0 <= block < self.spec.blocks:
            raise ValueError(f"the store has blocks 0 … {self.spec.blocks - 1}, got {block}")
        samples = self.spec.samples_of(block)
        if ids is None and self.spec.ids.dtype == "int64":
            ids = torch.arange(samples.start, samples.stop)
        given = {"features": features, "targets": targets, "outputs": outputs, "ids": ids}
        values = {}
        for array in self.spec.arrays:
            value = given.pop(array.name)
            rows = len(samples) * (self.spec.rows_per_sample if array.name == "features" else 1)
            if value is None or tuple(value.shape) != (rows, *array.row_shape):
                shape = None if value is None else tuple(value.shape)
                raise ValueError(f"block {block} has {array.name} of shape {(rows, *array.row_shape)}, got {shape}")
            if array.name == "features":
                value = stored_features(value, self.spec, samples.start)
            elif str(value.dtype) != f"torch.{array.dtype}":
                raise ValueError(f"the store holds {array.name} as {array.dtype}, got {value.dtype}")
            values[array.name] = to_numpy(value)
        surplus = [name for name, value in given.items() if value is not None]
        if surplus:
            raise ValueError(f"the store was made without {surplus[0]}, got some for block {block}")

        checksums, names = [], []
        for array, strip, name in self.spec.keys(block):
            data = encode(_chunk(values[array.name], array, strip))
            self.folder.write(name, data)
            checksums.append(checksum(data))
            names.append(name)
        self.folder.settle(names)
        line = manifest_line(self.header, block, checksums)
        self.folder.extend(MANIFEST, self.manifest.length, line)
        self.manifest.length += len(line)
        self.manifest.entries[block] = checksums

    def finish(self) -> None:
        """Bring the manifest into its last form; the bytes of a finished store do not depend on its history.

        Raises:
            IncompleteStoreError: if a block is missing.
        """
        missing = self.missing_blocks()
        if missing:
            raise IncompleteStoreError(f"{self.url} still lacks {len(missing)} of {self.spec.blocks} blocks")
        final = self.manifest.to_bytes(self.header)
        try:
            written = self.folder.read(MANIFEST, len(final))
        except CorruptStoreError:
            written = b""
        if written != final:
            self._rewrite_manifest()

    def close(self) -> None:
        """Let the next writer in."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _agreed(self, wanted: Header) -> Header | None:
        """The header that is there if it is the wanted one; None if a new one may be written."""
        if isinstance(self.folder, LocalFolder) and self.folder.path.is_file():
            raise StoreFormatError(f"{self.url} is a file: a store is a folder")
        try:
            header = Header.from_bytes(self.folder.read(ROOT, HEADER_LIMIT), self.url)
        except (FileNotFoundError, CorruptStoreError) as error:
            manifest = read_manifest(self.folder, wanted)
            if manifest.entries:
                return None  # its blocks are of this very extraction: only the header has to be written again
            if manifest.damaged:
                raise CorruptStoreError(
                    f"{self.url} has no readable header and its blocks are not of this extraction: "
                    "delete it or take another path"
                ) from error
            self._check_unused()
            return None
        there, here = header.to_json(), wanted.to_json()
        lines = differences(
            {key: value for key, value in there.items() if key != ENVIRONMENT},
            {key: value for key, value in here.items() if key != ENVIRONMENT},
        )
        if lines:
            raise StoreMismatchError(
                f"{self.url} was made otherwise: {'; '.join(lines[:3])}"
                + (f" and {len(lines) - 3} more differences" if len(lines) > 3 else "")
                + ". Take another path, or what it was made with",
                lines,
            )
        return header

    def _check_unused(self) -> None:
        """Refuse a folder that holds anything but the beginnings of a store."""
        begun = {ROOT, MANIFEST, LOCK, *_DESCRIPTIONS}
        for name in self.folder.names():
            if name.removesuffix(PARTIAL) not in begun:
                raise StoreFormatError(f"{self.url} is no store and not empty (it holds {name}): take another path")

    def _begin(self) -> Manifest:
        """Write manifest and, last, header: a store is there only when all of its description is."""
        manifest = read_manifest(self.folder, self.header)
        self.folder.write(MANIFEST, manifest.to_bytes(self.header))
        self.folder.write(ROOT, self.header.to_bytes())
        self.folder.settle([ROOT, MANIFEST])
        return read_manifest(self.folder, self.header)

    def _rewrite_manifest(self) -> None:
        data = self.manifest.to_bytes(self.header)
        self.folder.write(MANIFEST, data)
        self.folder.settle([MANIFEST])
        self.manifest.length = len(data)
        self.manifest.damaged.clear()


def stored_features(features: Tensor, spec: StoreSpec, first_sample: int) -> Tensor:
    """The features in the dtype that is stored, if nothing is lost but precision.

    Args:
        features: ``(m * r, d)``
        spec: the store's shape.
        first_sample: the index of the sample of the first row.

    Raises:
        ValueError: if the features are not floating point.
        StoredValueError: if a feature is not finite, overflows, or a row that is not zero becomes zero.
    """
    if not features.is_floating_point():
        raise ValueError(f"features are floating point, got {features.dtype}")
    features = features.detach()
    stored = features.to(getattr(torch, spec.dtype))
    wider = 'store "float32" or "bfloat16"' if spec.dtype == "float16" else 'store "float64"'
    faults = [
        (~torch.isfinite(features).all(-1), "is not finite", "look at its inputs and the network's weights"),
        (
            ~torch.isfinite(stored).all(-1),
            f"overflows {spec.dtype} (at most {torch.finfo(stored.dtype).max:.4g})",
            wider,
        ),
        (
            (features != 0).any(-1) & ~(stored != 0).any(-1),
            f"is too small for {spec.dtype} and would become zero",
            wider,
        ),
    ]
    for fault, what, remedy in faults:
        if fault.any():
            row = int(fault.nonzero()[0])
            sample = first_sample + row // spec.rows_per_sample
            raise StoredValueError(
                f"the feature row of sample {sample} (row {row % spec.rows_per_sample} of {spec.rows_per_sample}) "
                f"{what}: {remedy}",
                sample,
            )
    return stored


def _chunk(value: np.ndarray, array: ArrayLayout, strip: int) -> np.ndarray:
    """The part of a block that one chunk holds, filled up to the chunk's shape."""
    part = value if not array.row_shape else value[:, array.columns(strip)]
    if part.shape == array.chunk_shape:
        return part
    fill = math.nan if array.fill == "NaN" else array.fill
    chunk = np.full(array.chunk_shape, fill, NUMPY[array.dtype])
    chunk[tuple(slice(size) for size in part.shape)] = part
    return chunk
