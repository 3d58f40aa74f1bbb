"""Arrays and a header on disk: extract once, ask for ever. It knows no feature map.

:meth:`FeatureStore.open` reads, :class:`StoreWriter` writes block by block; ``phi.extract(dataset, path)`` drives it.

A store is a Zarr v3 group that any Zarr reader reads::

    features.zarr/
        zarr.json                 the header, as attributes of the group, sealed by a checksum
        features/zarr.json        (N, d), chunks over blocks of samples and strips of columns; NaN fill
        features/c.<block>.<strip>
        features/manifest.jsonl   a line per finished block: SHA-256 of each of its files
        features/lock             empty; locked while a writer is open
        targets/ outputs/ ids/    one row per sample

Chunks are Zstandard + CRC32C. bfloat16 is stored as the uint16 of its bits (attribute ``bits_of``), since neither
Zarr nor NumPy has it. Nothing is ever unpickled.
"""

from tangrams.store.atomic import replacing
from tangrams.store.codec import dtype_name, text_bytes
from tangrams.store.errors import (
    CorruptStoreError,
    IncompleteStoreError,
    StoredValueError,
    StoreError,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
    StoreNotFoundError,
    StoreReadError,
    StoreWriteError,
)
from tangrams.store.feature_store import FeatureStore
from tangrams.store.header import differences
from tangrams.store.layout import SideArray, StoreSpec, default_block_size
from tangrams.store.stored_rows import StoredRows
from tangrams.store.writer import StoreWriter

__all__ = [
    "CorruptStoreError",
    "FeatureStore",
    "IncompleteStoreError",
    "SideArray",
    "StoreError",
    "StoreFormatError",
    "StoreLockedError",
    "StoreMismatchError",
    "StoreNotFoundError",
    "StoreReadError",
    "StoreSpec",
    "StoreWriteError",
    "StoreWriter",
    "StoredRows",
    "StoredValueError",
    "default_block_size",
    "differences",
    "dtype_name",
    "replacing",
    "text_bytes",
]
