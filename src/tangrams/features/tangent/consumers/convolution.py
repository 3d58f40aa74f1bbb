"""Convolutions of one to three dimensions: groups, strides, dilation, padding, transposed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tangrams.features.tangent.axis import Axis
from tangrams.features.tangent.consumers.base import Consumer, Source


class Convolution(Consumer):
    """``y = x ⋆ W + b``: the weight gradient is ``Σ_t g_t ⊗ patch_t`` over output positions t.

    A transposed convolution is the same with input and output gradient swapped: the patches are cut from the
    gradient. Patches come from a strided view with the channels last; ``F.unfold`` takes twice as long.
    """

    @classmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Convolution | None:
        """The weight itself (no views) and the bias."""
        kept = {}
        if 1 in sources and 0 not in sources and sources[1].is_view and sources[1].seen == sources[1].shape:
            kept[1] = sources[1]
        if 2 in sources and sources[2].is_view:
            kept[2] = sources[2]
        return cls(node, kept) if kept else None

    @property
    def groups(self) -> int:
        """Independent parts of the channels."""
        return self.node._saved_groups

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.node._saved_transposed

    @property
    def dims(self) -> tuple[int, ...]:
        """The first: samples, or samples × frames."""
        return (0,)

    @property
    def out_channels(self) -> int:
        """o."""
        return self.shape[1]

    @property
    def out_positions(self) -> int:
        """Output positions per image."""
        return math.prod(self.shape[2:])

    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """The input, samples first, and the geometry."""
        self.axis, self.n, self.dtype = axis, n, dtype
        node = self.node
        self._patches: Tensor | None = None
        self.stride = tuple(node._saved_stride)
        self.padding = tuple(node._saved_padding)
        self.dilation = tuple(node._saved_dilation)
        if 1 not in self.sources:
            return
        self.kernel = self.sources[1].shape[2:]
        saved = node._saved_input.detach().to(dtype)
        first = axis.samples_first(saved, n)
        self.inputs = first.reshape(n * axis.positions, *saved.shape[1:])

    def arrange(self, gradient: Tensor) -> Tensor:
        """``(n · frames, o, …)``."""
        first = self.axis.samples_first(gradient.to(self.dtype), self.n)
        return first.reshape(self.n * self.axis.positions, *gradient.shape[1:])

    def _cut(self, image: Tensor, positions: tuple[int, ...]) -> Tensor:
        """Patches ``(m, groups, T, Πk · c)`` of ``image (m, groups · c, …)`` at the first ``positions`` strides."""
        m, channels = image.shape[:2]
        c = channels // self.groups
        if any(self.padding):
            image = F.pad(image, [pad for size in reversed(self.padding) for pad in (size, size)])
        rank = len(positions)
        last = image.movedim(1, -1)
        pointwise = all(k == 1 for k in self.kernel) and all(s == 1 for s in self.stride)
        if pointwise and self.groups == 1:
            return last[(slice(None), *(slice(0, t) for t in positions))].reshape(m, 1, math.prod(positions), c)
        last = last.contiguous()
        strides = last.stride()
        size = (m, self.groups, *positions, *self.kernel, c)
        step = (
            strides[0],
            c,
            *(strides[1 + d] * self.stride[d] for d in range(rank)),
            *(strides[1 + d] * self.dilation[d] for d in range(rank)),
            1,
        )
        view = last.as_strided(size, step)
        patches = self.workspace.empty(*size, dtype=last.dtype, device=last.device).copy_(view)
        return patches.view(m, self.groups, math.prod(positions), math.prod(self.kernel) * c)

    def _native(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """``(m, groups, o, T)`` and patches ``(m, groups, T, Πk · c)``, in the roles of the weight's axes."""
        if self.transposed:
            plain = self.inputs
            patches = self._cut(gradient, tuple(plain.shape[2:]))
        else:
            plain = gradient
            if self._patches is None:
                self._patches = self._cut(self.inputs, tuple(gradient.shape[2:]))
            patches = self._patches
        m, channels = plain.shape[:2]
        return plain.reshape(m, self.groups, channels // self.groups, -1), patches

    def channels(self, slot: int) -> int:
        """o for a plain weight."""
        return self.out_channels if slot == 1 and self.groups == 1 and not self.transposed else 0

    def split(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """Some output channels."""
        return gradient[:, start:stop]

    def release(self) -> None:
        """Drop the patches."""
        self._patches = None

    def native_rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """The weight gradient as ``(o, Πk, c)``: the order of the patches."""
        if slot == 2:
            torch.sum(gradient.reshape(self.n, self.axis.positions, gradient.shape[1], -1), (1, 3), out=out)
            return
        plain, patches = self._native(gradient)
        frames = self.axis.positions
        m, groups, o, t = plain.shape
        i = patches.shape[-1]
        if frames > 1:
            plain = plain.reshape(self.n, frames, groups, o, t).permute(0, 2, 3, 1, 4).reshape(self.n, groups, o, -1)
            patches = patches.reshape(self.n, frames, groups, t, i).transpose(1, 2).reshape(self.n, groups, -1, i)
        left = plain.reshape(self.n * groups, o, -1)
        torch.bmm(left, patches.reshape(self.n * groups, -1, i), out=out.view(self.n * groups, o, i))

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """The weight gradient in the weight's own order ``(o, c, …)``."""
        if slot == 2:
            self.native_rows(slot, gradient, out)
            return
        native = torch.empty_like(out)
        self.native_rows(slot, gradient, native)
        shape = self.sources[1].shape
        out.view(self.n, shape[0], shape[1], -1).copy_(native.view(self.n, shape[0], -1, shape[1]).mT)
