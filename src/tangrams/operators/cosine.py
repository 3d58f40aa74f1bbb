"""The cosine transform (DCT-II) and its inverse, each by one real FFT of the same length."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor


def cosine_transform(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    r"""``C x`` over the last dimension, C orthonormal, ``C_rc = √((2 − [r = 0]) / n) cos(π r (2c + 1) / 2n)``.

    The even entries forwards and then the odd ones backwards, v, have the Fourier transform
    ``V_r = e^{iπr/2n} (X_r − i X_{n−r})`` up to the scale (Makhoul, 1980): one real FFT, of any length.

    Args:
        x: any length ≥ 1.

    Raises:
        ValueError: if the last dimension is empty.

    Example:
        >>> cosine_transform(torch.tensor([1.0, 2.0, 3.0, 4.0]))
        tensor([ 5.0000, -2.2304,  0.0000, -0.1585])
    """
    n = x.shape[-1]
    if n < 1:
        raise ValueError("cosine_transform needs at least one entry, got an empty dimension")
    if not x.numel():  # no FFT takes an empty batch
        return x.clone()
    v = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    spectrum = torch.fft.rfft(v) * _twiddle(n, x).conj()
    head, tail = spectrum.real, -spectrum.imag[..., 1 : (n + 1) // 2].flip(-1)
    return torch.cat([head, tail], -1) * _scale(n, x)


def inverse_cosine_transform(x: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch n"]:
    """``Cᵀ x`` over the last dimension, the inverse of :func:`cosine_transform` and its transpose (DCT-III).

    Args:
        x: any length ≥ 1.

    Raises:
        ValueError: if the last dimension is empty.
    """
    n = x.shape[-1]
    if n < 1:
        raise ValueError("inverse_cosine_transform needs at least one entry, got an empty dimension")
    if not x.numel():
        return x.clone()
    x = x / _scale(n, x)
    half = n // 2 + 1
    mirrored = torch.cat([torch.zeros_like(x[..., :1]), x[..., 1:].flip(-1)], -1)[..., :half]
    v = torch.fft.irfft(torch.complex(x[..., :half], -mirrored) * _twiddle(n, x), n=n)
    first = (n + 1) // 2
    out = torch.empty_like(x)
    out[..., ::2], out[..., 1::2] = v[..., :first], v[..., first:].flip(-1)
    return out


def _twiddle(n: int, like: Tensor) -> Complex[Tensor, "half"]:
    angle = torch.arange(n // 2 + 1, dtype=like.dtype, device=like.device) * (math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)


def _scale(n: int, like: Tensor) -> Float[Tensor, "n"]:
    scale = torch.full((n,), math.sqrt(2 / n), dtype=like.dtype, device=like.device)
    scale[0] = math.sqrt(1 / n)
    return scale
