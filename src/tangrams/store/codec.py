"""One chunk between memory and disk: little-endian bytes, Zstandard, CRC32C; Zarr v3's codecs of those names.

Chunks are encoded here and not by Zarr, because they are checked against the manifest before they are decoded, are
read once, and reach the disk at known moments. Any Zarr v3 reader reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numcodecs.zstd import Zstd
from torch import Tensor

from tangrams.store.errors import CorruptStoreError

LEVEL = 1
"""Zstandard's level: gradients hardly compress, repeats and zeros do at any level."""

NUMPY = {
    "bool": "|b1",
    "uint8": "|u1",
    "int8": "|i1",
    "int16": "<i2",
    "int32": "<i4",
    "int64": "<i8",
    "float16": "<f2",
    "bfloat16": "<u2",  # the bits: neither Zarr nor NumPy has the type
    "float32": "<f4",
    "float64": "<f8",
}
"""Every dtype that is stored: torch's name → NumPy's, as on disk."""


def dtype_name(dtype: torch.dtype) -> str:
    """``"float32"`` for ``torch.float32``.

    Args:
        dtype: one of :data:`NUMPY`.

    Raises:
        ValueError: on a dtype that cannot be stored.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in NUMPY:
        raise ValueError(f"a store cannot hold {dtype}: cast it to one of {', '.join(NUMPY)}")
    return name


def to_numpy(tensor: Tensor) -> np.ndarray:
    """The tensor's values as stored; bfloat16 as its bits."""
    tensor = tensor.detach().cpu().contiguous()
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.numpy().astype(NUMPY[dtype_name(tensor.dtype)], copy=False)


def to_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """The inverse of :func:`to_numpy`."""
    tensor = torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    return tensor.view(torch.bfloat16) if dtype == "bfloat16" else tensor


def text_bytes(values: Sequence[str]) -> Tensor:
    """Texts as UTF-8 bytes filled up with zeros: ``(n, longest)``, uint8.

    Args:
        values: texts without NUL characters.

    Raises:
        ValueError: if a text has a NUL character.
    """
    encoded = [value.encode() for value in values]
    if any(b"\0" in value for value in encoded):
        raise ValueError("a text to store has a NUL character")
    out = np.zeros((len(encoded), max(map(len, encoded), default=0)), np.uint8)
    for row, value in zip(out, encoded, strict=True):
        row[: len(value)] = np.frombuffer(value, np.uint8)
    return torch.from_numpy(out)


def texts(stored: Tensor) -> list[str]:
    """The inverse of :func:`text_bytes`."""
    return [bytes(row).rstrip(b"\0").decode("utf-8", "replace") for row in stored.numpy()]


def encode(array: np.ndarray) -> bytes:
    """The bytes of one chunk file; the same array always gives the same bytes."""
    body = Zstd(level=LEVEL).encode(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return body + _crc(body)


def decode(data: bytes, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """The array of one chunk file.

    Args:
        data: what :func:`encode` gave.
        shape: the chunk's.
        dtype: NumPy's name of it.

    Raises:
        CorruptStoreError: if the bytes are not a whole chunk of that shape.
    """
    body, crc = data[:-4], data[-4:]
    if len(data) < 4 or _crc(body) != crc:
        raise CorruptStoreError("CRC32C differs")
    out = np.empty(shape, dtype)
    flat = out.reshape(-1).view(np.uint8)
    try:
        decoded = Zstd().decode(body, out=flat)
    except (RuntimeError, ValueError) as error:
        raise CorruptStoreError(f"not a Zstandard frame of {flat.nbytes} bytes ({error})") from error
    if decoded.nbytes != flat.nbytes:
        raise CorruptStoreError(f"{decoded.nbytes} bytes where {flat.nbytes} belong")
    return out


def encoded_limit(nbytes: int) -> int:
    """No chunk file of that many bytes of data is longer than this."""
    return nbytes + nbytes // 64 + 1024


def _crc(body: bytes) -> bytes:
    import google_crc32c

    return google_crc32c.value(bytes(body)).to_bytes(4, "little")
