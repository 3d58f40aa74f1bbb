"""Samples as small PNGs inside a JSON file."""

from __future__ import annotations

import base64
import struct
import zlib

import torch
from torch import Tensor
from torch.nn import functional as F


def png(image: Tensor, *, low: int | float | None = None, high: int | float | None = None, max_side: int = 48) -> str:
    """One image as a PNG in a data URI.

    Args:
        image: ``(h, w)`` or ``(channels, h, w)``; three channels are colour, any other number is averaged to grey.
        low: the value that is drawn black; the smallest of the image by default.
        high: the value that is drawn white; the largest of the image by default.
        max_side: images with a longer side are reduced by averaging.

    Raises:
        ValueError: if ``image`` has another number of axes, is empty, or ``max_side`` is below one.
    """
    if image.ndim not in (2, 3) or image.numel() == 0:
        raise ValueError(f"png expects an image (h, w) or (channels, h, w), got shape {tuple(image.shape)}")
    if max_side < 1:
        raise ValueError(f"png expects max_side ≥ 1, got {max_side}")
    pixels = torch.nan_to_num(image.detach().to("cpu", torch.float32), posinf=0.0, neginf=0.0)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.shape[0] not in (1, 3):
        pixels = pixels.mean(0, keepdim=True)
    if max(pixels.shape[1:]) > max_side:
        scale = max_side / max(pixels.shape[1:])
        size = [max(1, round(side * scale)) for side in pixels.shape[1:]]
        pixels = F.interpolate(pixels[None], size=size, mode="area")[0]
    black = float(pixels.min()) if low is None else low
    white = float(pixels.max()) if high is None else high
    grey = ((pixels - black) / (white - black if white != black else 1.0)).clamp(0, 1)
    return _encode((grey * 255).round().to(torch.uint8))


def signed_png(change: Tensor, *, max_side: int = 48) -> str:
    """A perturbation as a PNG in a data URI: blue lowers a pixel, orange raises it, grey leaves it.

    The largest absolute change has the full colour; the two hues differ for colour-blind eyes too.

    Args:
        change: ``(h, w)`` or ``(channels, h, w)``; channels are summed.
        max_side: images with a longer side are reduced by averaging.
    """
    flat = change.detach().to("cpu", torch.float32)
    flat = flat.sum(0) if flat.ndim == 3 else flat
    scaled = (flat / flat.abs().max().clamp_min(torch.finfo(torch.float32).tiny))[None]
    neutral = torch.tensor([0.62, 0.62, 0.62])
    raised, lowered = torch.tensor([0.90, 0.45, 0.05]), torch.tensor([0.05, 0.35, 0.75])
    hue = torch.where(scaled > 0, raised[:, None, None], lowered[:, None, None])
    colour = neutral[:, None, None] + scaled.abs().sqrt() * (hue - neutral[:, None, None])
    return png(colour, low=0.0, high=1.0, max_side=max_side)


def _encode(pixels: Tensor) -> str:
    """8-bit ``(1 or 3, h, w)`` → PNG: signature, header, one deflated data chunk, end."""
    channels, height, width = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", _deflated(pixels.permute(1, 2, 0))), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _deflated(pixels: Tensor) -> bytes:
    """Rows ``(h, w, channels)``, deflated after the filter of PNG's 0 (none), 1 (left), 2 (above) that helps most."""
    values = pixels.to(torch.int16)
    left, above = values.clone(), values.clone()
    left[:, 1:] -= values[:, :-1]
    above[1:] -= values[:-1]
    filtered = [
        b"".join(bytes([kind, *row]) for row in rows.remainder(256).flatten(1).tolist())
        for kind, rows in enumerate((values, left, above))
    ]
    return min((zlib.compress(rows, 9) for rows in filtered), key=len)
