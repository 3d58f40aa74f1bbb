"""Convolution and pooling over positions: sums and means of kernels along shifted positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor
from torch.nn.functional import pad

from tangrams.kernels.ntk.layers import Layer, check_std, weigh
from tangrams.kernels.ntk.state import KernelState

Padding = str | int | tuple[int, ...]


@dataclass(frozen=True)
class Conv(Layer):
    r"""A convolution over any number of position axes in NTK parametrisation [055].

    .. math:: K_{pp'} ← \frac{σ_w^2}{s} \sum_{d} K_{p+d,\,p'+d} + σ_b^2, \qquad
              Θ_{pp'} ← K_{pp'} + \frac{σ_w^2}{s} \sum_{d} Θ_{p+d,\,p'+d}

    with s the number of offsets d in the window, and zero outside the image. Zero variance at the border makes "same"
    kernels smaller there; "circular" wraps around.

    Args:
        kernel_size: the window, one size per position axis or one for all.
        W_std: σ_w.
        b_std: σ_b.
        stride: one per axis or one for all.
        padding: "same" (⌈size / stride⌉ positions, the odd one at the end), "valid" (none), "circular" ("same" with
            wrap-around), or zeros on either side, one number per axis or one for all, as in ``torch.nn.Conv2d``.

    Raises:
        ValueError: if a size, stride, padding or standard deviation is none.
    """

    kernel_size: int | tuple[int, ...]
    W_std: float = 1.0
    b_std: float = 0.0
    stride: int | tuple[int, ...] = 1
    padding: Padding = "same"

    def __post_init__(self) -> None:
        check_std("Conv", self.W_std, self.b_std)
        _check_window("Conv", self.kernel_size, self.stride, self.padding)

    def __call__(self, state: KernelState) -> KernelState:
        """The mean over the window, the same offset on both sides, then weights."""
        windows = _windows("Conv", state.spatial, self.kernel_size, self.stride, self.padding)

        def slide(cov: Tensor) -> Tensor:
            for axis, window in enumerate(windows):
                axes = (2 + axis, 2 + axis + len(windows)) if state.pairs else (2 + axis,)
                cov = window.mean(cov, axes)
            return cov

        return weigh(_mapped(state, slide, windows), self.W_std, self.b_std)


@dataclass(frozen=True)
class AvgPool(Layer):
    r"""Average pooling: the mean of the kernel over both windows [055].

    .. math:: K_{PP'} ← \frac{1}{s^2} \sum_{p \in P} \sum_{p' \in P'} K_{pp'}, \quad Θ likewise

    Args:
        window: one size per position axis or one for all.
        stride: one per axis or one for all; the window by default.
        padding: as in :class:`Conv`; "valid" by default. The divisor is the whole window at the border too.

    Raises:
        ValueError: if a size, stride or padding is none.
    """

    window: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: Padding = "valid"

    def __post_init__(self) -> None:
        _check_window("AvgPool", self.window, self.window if self.stride is None else self.stride, self.padding)

    def __call__(self, state: KernelState) -> KernelState:
        """Means over each position axis by itself."""
        stride = self.window if self.stride is None else self.stride
        windows = _windows("AvgPool", state.spatial, self.window, stride, self.padding)

        def slide(cov: Tensor) -> Tensor:
            for axis, window in enumerate(windows):
                cov = window.mean(cov, (2 + axis,))
                cov = window.mean(cov, (2 + axis + len(windows),))
            return cov

        return _mapped(state, slide, windows)

    def needs_pairs(self, wanted: bool) -> bool:
        """Positions of one window meet each other."""
        return True


@dataclass(frozen=True)
class _Window:
    """A sliding mean along one position axis."""

    size: int
    stride: int
    before: int
    after: int
    wrap: bool
    length: int

    @property
    def positions(self) -> int:
        return (self.length + self.before + self.after - self.size) // self.stride + 1

    def mean(self, cov: Tensor, axes: tuple[int, ...]) -> Tensor:
        """The mean over offsets shared by ``axes``: one axis, or the two positions of a pair."""
        for axis in axes:
            cov = self._padded(cov, axis)
        extent = self.stride * (self.positions - 1) + 1
        parts = []
        for offset in range(self.size):
            index: list[slice] = [slice(None)] * cov.ndim
            for axis in axes:
                index[axis] = slice(offset, offset + extent, self.stride)
            parts.append(cov[tuple(index)])
        return reduce(torch.add, parts) / self.size

    def _padded(self, cov: Tensor, axis: int) -> Tensor:
        if not (self.before or self.after):
            return cov
        if self.wrap:
            index = torch.arange(-self.before, self.length + self.after, device=cov.device) % self.length
            return cov.index_select(axis, index)
        return pad(cov, (0, 0) * (cov.ndim - 1 - axis) + (self.before, self.after))


def _mapped(state: KernelState, slide: Callable[[Tensor], Tensor], windows: Sequence[_Window]) -> KernelState:
    return replace(
        state,
        **state.covariances(slide),
        ntk=None if state.ntk is None else slide(state.ntk),
        spatial=tuple(window.positions for window in windows),
    )


def _per_axis(value: int | tuple[int, ...], axes: int, who: str, what: str) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    if len(value) != axes:
        raise ValueError(f"{who} has {what} {value} for {len(value)} axes, but its input has {axes} position axes")
    return tuple(value)


def _windows(
    who: str, spatial: tuple[int, ...], size: int | tuple[int, ...], stride: int | tuple[int, ...], padding: Padding
) -> list[_Window]:
    axes = len(spatial)
    if axes == 0:
        raise ValueError(f"{who} needs inputs with positions, (n, C, …), got (n, d)")
    sizes = _per_axis(size, axes, who, "a window")
    strides = _per_axis(stride, axes, who, "a stride")
    explicit = (0,) * axes if isinstance(padding, str) else _per_axis(padding, axes, who, "a padding")
    windows = []
    for length, width, step, zeros in zip(spatial, sizes, strides, explicit, strict=True):
        before = after = zeros
        if padding in ("same", "circular"):
            positions = -(-length // step)
            missing = max((positions - 1) * step + width - length, 0)
            before, after = missing // 2, missing - missing // 2
        window = _Window(width, step, before, after, padding == "circular", length)
        if window.positions < 1:
            raise ValueError(f"{who}: a window of {width} does not fit into {length} positions: pad, or pool less")
        windows.append(window)
    return windows


def _check_window(who: str, size: int | tuple[int, ...], stride: int | tuple[int, ...], padding: Padding) -> None:
    for what, value in (("window", size), ("stride", stride)):
        if any(number < 1 for number in ((value,) if isinstance(value, int) else value)):
            raise ValueError(f"{who} needs a {what} ≥ 1, got {value}")
    if isinstance(padding, str):
        if padding not in ("same", "valid", "circular"):
            raise ValueError(f'{who} knows the paddings "same", "valid", "circular" and numbers, got {padding!r}')
    elif any(number < 0 for number in ((padding,) if isinstance(padding, int) else padding)):
        raise ValueError(f"{who} needs a padding ≥ 0, got {padding}")
