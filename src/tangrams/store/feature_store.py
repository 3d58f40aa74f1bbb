"""A finished extraction: features, targets, outputs and sample ids on disk, and a header that says what they are."""

from __future__ import annotations

import copy
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tangrams.operators.dense_rows import DenseRows
from tangrams.operators.feature_matrix import FeatureMatrix
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Column
from tangrams.store.blocks import AGAIN, damaged_blocks, damaged_metadata, read_chunk, read_manifest
from tangrams.store.codec import texts, to_tensor
from tangrams.store.errors import (
    CorruptStoreError,
    IncompleteStoreError,
    StoreFormatError,
    StoreMismatchError,
    StoreNotFoundError,
)
from tangrams.store.folder import LocalFolder, open_folder
from tangrams.store.header import HEADER_LIMIT, Header
from tangrams.store.layout import StoreSpec
from tangrams.store.stored_rows import StoredRows


class FeatureStore:
    """Read access to a store; :meth:`open` makes one.

    Nothing is loaded until asked for, every chunk is checked against the manifest when it is read, and a store that
    is unfinished or damaged raises where it is used. It is immutable, pickles by its address, and a copy that meets
    another store at that address refuses it.

    Args:
        url: a local path or an fsspec address.
        header: what :meth:`open` read there.
    """

    def __init__(self, url: str | os.PathLike[str], header: Header) -> None:
        self._folder = open_folder(url)
        self._header = header
        self._manifest = read_manifest(self._folder, header)

    @classmethod
    def open(cls, url: str | os.PathLike[str]) -> FeatureStore:
        """Open the store at a local path, a ``file://`` address, or any address that fsspec reads.

        Args:
            url: such as ``"features.zarr"``, ``"s3://bucket/features.zarr"``, ``"zip://features.zarr::all.zip"``.

        Raises:
            StoreNotFoundError: if there is none.
            StoreFormatError: if it is no feature store, or of an unknown version.
            CorruptStoreError: if its description was damaged.
        """
        folder = open_folder(url)
        try:
            data = folder.read("zarr.json", HEADER_LIMIT)
        except FileNotFoundError:
            if isinstance(folder, LocalFolder) and folder.path.exists():
                raise StoreFormatError(f"{folder.url} is no feature store: it has no zarr.json") from None
            raise StoreNotFoundError(f"there is no store at {folder.url}: make one with phi.extract(…)") from None
        header = Header.from_bytes(data, folder.url)
        bad = damaged_metadata(folder, header)
        if bad:
            raise CorruptStoreError(f"{folder.url}/{bad[0].name}/zarr.json is gone or changed: {AGAIN}")
        return cls(url, header)

    @property
    def url(self) -> str:
        """Where it is; of a local store the absolute path."""
        return self._folder.url

    @property
    def header(self) -> dict[str, Any]:
        """What the store says about itself: format, spec, map, data, options, environment."""
        return copy.deepcopy(self._header.to_json())

    @property
    def spec(self) -> StoreSpec:
        """Its shape."""
        return self._header.spec

    @property
    def shape(self) -> torch.Size:
        """``(N, d)`` of the feature matrix, N = samples × rows per sample."""
        return torch.Size((self.spec.samples * self.spec.rows_per_sample, self.spec.features))

    @property
    def dtype(self) -> torch.dtype:
        """Of the features on disk."""
        return getattr(torch, self.spec.dtype)

    @property
    def rows_per_sample(self) -> int:
        """r: sample i has the rows ``i * r … i * r + r - 1``."""
        return self.spec.rows_per_sample

    @property
    def columns(self) -> tuple[Column, ...]:
        """The named runs that make up the feature columns; one nameless run if the header does not say."""
        listed: Any = self._header.about.get("columns")
        try:
            found = tuple(
                Column(str(name), tuple(map(int, shape)), int(start), int(stop)) for name, shape, start, stop in listed
            )
        except (TypeError, ValueError):
            found = ()
        if not found or found[-1].stop != self.spec.features:
            return (Column("features", (self.spec.features,), 0, self.spec.features),)
        return found

    def __len__(self) -> int:
        """The number of samples."""
        return self.spec.samples

    @property
    def complete(self) -> bool:
        """Whether every block was finished."""
        return len(self._manifest.entries) == self.spec.blocks

    def check_complete(self) -> None:
        """Return if every block was finished.

        Raises:
            CorruptStoreError: if a line of the manifest is damaged.
            IncompleteStoreError: if the extraction was not finished.
        """
        if self.complete:
            return
        done = f"{self.url} has {len(self._manifest.entries)} of {self.spec.blocks} blocks"
        if self._manifest.damaged:
            raise CorruptStoreError(f"{done} and a damaged manifest (line {self._manifest.damaged[0]}): {AGAIN}")
        raise IncompleteStoreError(f"{done}: {AGAIN}")

    def matrix(self, *, panel_bytes: int | None = None) -> FeatureMatrix:
        """The feature matrix, streamed from disk; half precision answers in float32.

        Args:
            panel_bytes: how much of the store a Gram matrix or a sketch holds at once: more means fewer passes;
                256 MiB by default, or an eighth of a smaller store.
        """
        self.check_complete()
        return FeatureMatrix(rows=StoredRows(self, panel_bytes=panel_bytes))

    def gram(self, other: FeatureStore | FeatureMatrix | Rows | Tensor | None = None) -> Tensor:
        """``Φ Ψᵀ``, ``(N, M)``, block by block.

        Args:
            other: Ψ; Φ itself by default.

        Raises:
            ValueError: if the columns are not as many.
        """
        rows = self.matrix().rows
        if other is None:
            return rows.gram(rows)
        right = other.matrix() if isinstance(other, FeatureStore) else other
        right = right.rows if isinstance(right, FeatureMatrix) else right
        right = DenseRows(right) if isinstance(right, Tensor) else right
        if right.shape[1] != self.spec.features:
            raise ValueError(f"{self.url} has {self.spec.features} features, the other side {right.shape[1]}")
        return rows.gram(right)

    def diag(self) -> Tensor:
        """Squared norms of the rows: ``(N,)``."""
        return self.matrix().rows.diag()

    @property
    def ids(self) -> Tensor | list[str]:
        """The id of each sample: ``(n,)``, int64, its index in the dataset unless ids were given, or n texts."""
        ids = self._side("ids")
        return ids if self.spec.ids.dtype == "int64" else texts(ids)

    @property
    def targets(self) -> Tensor | None:
        """``(n, …)``, or None if the data had none; read anew each time."""
        return None if self.spec.targets is None else self._side("targets")

    @property
    def outputs(self) -> Tensor | None:
        """What the network answered, ``(n, …)``, or None if the map has no network; read anew each time."""
        return None if self.spec.outputs is None else self._side("outputs")

    def dask(self) -> Any:
        """The features as a dask array, chunks as on disk, each checked when it is read; half precision as float32.

        Raises:
            ImportError: if dask is not installed: ``pip install tangrams[scale]``.
        """
        self.check_complete()
        try:
            import dask.array
        except ImportError as error:
            raise ImportError("FeatureStore.dask needs dask: pip install 'tangrams[scale]'") from error
        layout = self.spec.features_layout
        n, d = self.shape
        heights = tuple(min(layout.block_rows, n - start) for start in range(0, n, layout.block_rows)) or (0,)
        widths = tuple(min(layout.strip, d - start) for start in range(0, d, layout.strip)) or (0,)
        dtype = np.dtype("float64" if self.dtype == torch.float64 else "float32")
        if 0 in (n, d):
            return dask.array.zeros((n, d), dtype=dtype)
        return dask.array.map_blocks(
            _dask_chunk,
            store=self,
            dtype=dtype,
            chunks=(heights, widths),
            meta=np.empty((0, 0), dtype),
            name=f"tangrams-{self._header.digest}",
        )

    def verify(self) -> None:
        """Read every byte and compare it with what was written.

        Raises:
            CorruptStoreError: naming the damaged blocks.
        """
        bad = damaged_blocks(self._folder, self._manifest, self._header)
        if bad:
            shown = ", ".join(map(str, bad[:10])) + ("…" if len(bad) > 10 else "")
            raise CorruptStoreError(f"{self.url}: blocks {shown} are damaged, {len(bad)} in all: {AGAIN}", bad)
        self.check_complete()

    def read_features(self, block: int, strip: int) -> np.ndarray:
        """One chunk of the features as stored, checked and filled up to the chunk's shape; bfloat16 as its bits.

        Args:
            block: which block of samples.
            strip: which chunk of the block.
        """
        return read_chunk(self._folder, self._manifest, self._header, self.spec.features_layout, block, strip)

    def __repr__(self) -> str:
        state = "" if self.complete else f", {len(self._manifest.entries)} of {self.spec.blocks} blocks"
        return f"FeatureStore({self.url!r}, {tuple(self.shape)}, {self.spec.dtype}{state})"

    def __deepcopy__(self, memo: dict[int, Any]) -> FeatureStore:
        return self

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return _reopen, (self.url, self._header.digest)

    def _side(self, name: str) -> Tensor:
        self.check_complete()
        (array,) = (array for array in self.spec.arrays if array.name == name)
        out = torch.empty((array.rows, *array.row_shape), dtype=getattr(torch, array.dtype))
        for block in range(self.spec.blocks):
            samples = self.spec.samples_of(block)
            chunk = read_chunk(self._folder, self._manifest, self._header, array, block, 0)
            inside = tuple(slice(size) for size in (len(samples), *array.row_shape))
            out[samples.start : samples.stop] = to_tensor(chunk[inside], array.dtype)
        return out


def _dask_chunk(store: FeatureStore, block_id: tuple[int, int]) -> np.ndarray:
    block, strip = block_id
    rows = len(store.spec.samples_of(block)) * store.rows_per_sample
    columns = store.spec.features_layout.columns(strip)
    chunk = to_tensor(store.read_features(block, strip)[:rows, : columns.stop - columns.start], store.spec.dtype)
    return chunk.to(torch.promote_types(chunk.dtype, torch.float32)).numpy()


def _reopen(url: str, digest: str) -> FeatureStore:
    store = FeatureStore.open(url)
    if store._header.digest != digest:
        raise StoreMismatchError(f"{url} is not the store that was pickled: another one was written there", ["header"])
    return store
