"""Where everything in a store lies: blocks of samples, chunks of each array, Zarr v3 metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tangrams.store.codec import LEVEL, NUMPY
from tangrams.store.errors import StoreFormatError

BLOCK_BYTES = 1 << 26
"""A block of features is about this large by default, and has at least one sample."""

CHUNK_BYTES = 1 << 23
"""A wider block is cut into columns of chunks of about this size: the unit that a reader holds."""

MAX_CHUNK_BYTES = 1 << 30
MAX_BLOCK_SIZE = 1024
_LIMIT = 1 << 62
_SIZES = ("samples", "rows_per_sample", "features", "dtype", "block_size", "strip")
FEATURE_DTYPES = ("float64", "float32", "float16", "bfloat16")
ARRAYS = ("features", "targets", "outputs", "ids")
_ZARR_NAMES = {"bfloat16": "uint16"}
_NAN_FILL = {"float64": "NaN", "float32": "NaN", "float16": "NaN", "bfloat16": 0x7FC0, "bool": False}


@dataclass(frozen=True)
class ArrayLayout:
    """One Zarr array of a store, chunked over its first axis and, if it is wide, over its second.

    Attributes:
        name: its folder.
        dtype: torch's name of it.
        rows: its length.
        row_shape: the shape of one row.
        block_rows: how many rows a block has.
        strip: how many entries of the row's first axis a chunk has.
    """

    name: str
    dtype: str
    rows: int
    row_shape: tuple[int, ...]
    block_rows: int
    strip: int

    @property
    def strips(self) -> int:
        """How many chunks a block has, side by side."""
        return max(1, -(-self.row_shape[0] // self.strip)) if self.row_shape else 1

    def columns(self, strip: int) -> slice:
        """The columns of a chunk of a block, of an array that is at least 2-D."""
        return slice(strip * self.strip, min((strip + 1) * self.strip, self.row_shape[0]))

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """The shape of every chunk on disk; the last ones are filled up."""
        if not self.row_shape:
            return (self.block_rows,)
        return (self.block_rows, self.strip, *(max(1, size) for size in self.row_shape[1:]))

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk."""
        return math.prod(self.chunk_shape) * int(NUMPY[self.dtype][2:])

    @property
    def fill(self) -> Any:
        """What Zarr shows where nothing was written: NaN where there is one."""
        return _NAN_FILL.get(self.dtype, 0)

    def key(self, block: int, strip: int) -> str:
        """The file of a chunk."""
        tail = [strip, *[0] * (len(self.row_shape) - 1)] if self.row_shape else []
        return f"{self.name}/c." + ".".join(map(str, [block, *tail]))

    def metadata(self) -> bytes:
        """The array's ``zarr.json``."""
        endian = {} if self.dtype in {"bool", "uint8", "int8"} else {"configuration": {"endian": "little"}}
        document = {
            "shape": [self.rows, *self.row_shape],
            "data_type": _ZARR_NAMES.get(self.dtype, self.dtype),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunk_shape)}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": self.fill,
            "codecs": [
                {"name": "bytes", **endian},
                {"name": "zstd", "configuration": {"level": LEVEL, "checksum": False}},
                {"name": "crc32c"},
            ],
            "attributes": {"bits_of": "bfloat16"} if self.dtype == "bfloat16" else {},
            "zarr_format": 3,
            "node_type": "array",
            "storage_transformers": [],
        }
        return json.dumps(document, indent=2).encode()


@dataclass(frozen=True)
class SideArray:
    """What is stored beside the features for every sample.

    Attributes:
        dtype: torch's name of it, such as ``"int64"``.
        shape: of one sample.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class StoreSpec:
    """The shape of a store: everything that its bytes depend on beside the values.

    Attributes:
        samples: n.
        rows_per_sample: r; sample i has the rows ``i * r … i * r + r - 1``.
        features: d.
        dtype: of the stored features: ``"float64"``, ``"float32"``, ``"float16"`` or ``"bfloat16"``.
        block_size: samples per block, the unit of work.
        targets: what is stored as targets, if anything.
        outputs: what is stored as the network's outputs, if anything.
        ids: how the id of a sample is stored: one int64, or the bytes of a text filled up with zeros.
        strip: columns of features per chunk; 0 for as many as make about :data:`CHUNK_BYTES`.

    Raises:
        ValueError: on a negative size, an empty block or an unknown dtype.
    """

    samples: int
    rows_per_sample: int
    features: int
    dtype: str
    block_size: int
    targets: SideArray | None = None
    outputs: SideArray | None = None
    ids: SideArray = SideArray("int64", ())
    strip: int = 0

    def __post_init__(self) -> None:
        lowest = {"samples": 0, "rows_per_sample": 1, "features": 0, "block_size": 1, "strip": 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value < _LIMIT:
                raise ValueError(f"a store needs {name} ≥ {low}, got {value!r}")
        if self.dtype not in FEATURE_DTYPES:
            raise ValueError(f"a store holds features as {', '.join(FEATURE_DTYPES)}, got {self.dtype!r}")
        if self.strip == 0:
            column_bytes = self.block_size * self.rows_per_sample * int(NUMPY[self.dtype][2:])
            strip = min(max(1, self.features), max(1, CHUNK_BYTES // column_bytes))
            object.__setattr__(self, "strip", strip)
        if self.ids != SideArray("int64", ()) and (self.ids.dtype, len(self.ids.shape)) != ("uint8", 1):
            raise ValueError(f"a sample's id is one int64 or uint8 text, got {self.ids}")
        for name, side in self.beside.items():
            if side is None:
                continue
            if side.dtype not in NUMPY:
                raise ValueError(f"a store holds {name} as {', '.join(NUMPY)}, got {side.dtype!r}")
            if not all(type(size) is int and 0 <= size < _LIMIT for size in side.shape):
                raise ValueError(f"{name} of a sample cannot have shape {side.shape}")
        for array in self.arrays:
            if array.chunk_bytes > MAX_CHUNK_BYTES:
                raise ValueError(
                    f"a block of {self.block_size} samples has chunks of {array.chunk_bytes:.3g} bytes in "
                    f"{array.name}, more than {MAX_CHUNK_BYTES}: choose a smaller block_size"
                )

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.samples // self.block_size)

    def samples_of(self, block: int) -> range:
        """The indices of the samples of a block."""
        start = block * self.block_size
        return range(start, min(start + self.block_size, self.samples))

    @cached_property
    def arrays(self) -> tuple[ArrayLayout, ...]:
        """The features first, then what is beside them, the sample ids last."""
        rows = self.block_size * self.rows_per_sample
        features = ArrayLayout(
            "features", self.dtype, self.samples * self.rows_per_sample, (self.features,), rows, self.strip
        )
        return features, *(
            ArrayLayout(
                name,
                side.dtype,
                self.samples,
                side.shape,
                self.block_size,
                max(1, *side.shape[:1]) if side.shape else 1,
            )
            for name, side in self.beside.items()
            if side is not None
        )

    @property
    def beside(self) -> dict[str, SideArray | None]:
        """What there is for every sample beside its features."""
        return {"targets": self.targets, "outputs": self.outputs, "ids": self.ids}

    @property
    def features_layout(self) -> ArrayLayout:
        """The array of the features."""
        return self.arrays[0]

    def keys(self, block: int) -> list[tuple[ArrayLayout, int, str]]:
        """Array, strip and file of every chunk of a block, in the order of the manifest."""
        return [(array, strip, array.key(block, strip)) for array in self.arrays for strip in range(array.strips)]

    @cached_property
    def chunks_per_block(self) -> int:
        """How many chunk files a block has."""
        return sum(array.strips for array in self.arrays)

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        side = {
            name: None if value is None else {"dtype": value.dtype, "shape": list(value.shape)}
            for name, value in self.beside.items()
        }
        return {name: getattr(self, name) for name in _SIZES} | side

    @classmethod
    def from_json(cls, data: Any) -> StoreSpec:
        """The inverse of :meth:`to_json`.

        Args:
            data: parsed JSON, of any origin.

        Raises:
            StoreFormatError: if it describes no store.
        """
        names = (*_SIZES, "targets", "outputs", "ids")
        if not isinstance(data, Mapping) or set(data) != set(names):
            raise StoreFormatError(f"the store's shape should have the keys {', '.join(names)}")
        try:
            sizes = {name: data[name] for name in _SIZES}
            ids = _side(data["ids"])
            if ids is None:
                raise ValueError("samples have ids")
            return cls(**sizes, targets=_side(data["targets"]), outputs=_side(data["outputs"]), ids=ids)
        except (ValueError, TypeError) as error:
            raise StoreFormatError(f"the store's shape is none: {error}") from error


def default_block_size(samples: int, rows_per_sample: int, features: int, dtype: str) -> int:
    """Samples per block such that a block has about :data:`BLOCK_BYTES`.

    Args:
        samples: n.
        rows_per_sample: r.
        features: d.
        dtype: of the stored features.
    """
    sample = max(1, rows_per_sample * features * int(NUMPY[dtype][2:]))
    return max(1, min(BLOCK_BYTES // sample, MAX_BLOCK_SIZE, samples))


def _side(data: Any) -> SideArray | None:
    if data is None:
        return None
    if not isinstance(data, Mapping) or set(data) != {"dtype", "shape"} or not isinstance(data["shape"], list):
        raise ValueError(f"no array: {data!r:.60}")
    return SideArray(data["dtype"], tuple(data["shape"]))
