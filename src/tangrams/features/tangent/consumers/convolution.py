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

    Where the library has kernels for it, the n weight gradients are those of one convolution with n times as many
    groups, a sample in each: faster than patches and a product, by 1.1 (3 channels) to 3 (16 channels, 32 × 32), and
    nothing but the result is stored. Elsewhere, and where a sample has several frames, patches go into one product;
    they come from a strided view with the channels last, as ``F.unfold`` takes twice as long. A transposed convolution
    is the same with input and output gradient swapped: its patches are cut from the gradient.
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
        """The number of output channels."""
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
        return view.reshape(m, self.groups, math.prod(positions), math.prod(self.kernel) * c)

    def channels(self, slot: int) -> int:
        """Its output channels, for a plain weight."""
        return self.out_channels if slot == 1 and self.groups == 1 and not self.transposed else 0

    def split(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """Some output channels."""
        return gradient[:, start:stop]

    def release(self) -> None:
        """Drop the patches."""
        self._patches = None

    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """``Σ_t g_t ⊗ patch_t``, or ``Σ_t g_t`` for the bias."""
        if slot == 2:
            torch.sum(gradient.reshape(self.n, self.axis.positions, gradient.shape[1], -1), (1, 3), out=out)
            return
        fresh = self.fresh_rows(slot, gradient)
        if fresh is not None:
            out.copy_(fresh)
            return
        plain, patches = self._by_patches(gradient)
        native = torch.bmm(plain, patches)
        channels = self.sources[1].shape[1]
        out.view(self.n, native.shape[0] // self.n * native.shape[1], channels, -1).copy_(
            native.view(self.n, -1, patches.shape[2] // channels, channels).mT
        )

    def fresh_rows(self, slot: int, gradient: Tensor) -> Tensor | None:
        """The weight gradient as a tensor of its own, where every sample has one frame."""
        if slot != 1 or self.axis.positions > 1 or self.transposed or not self._grouped_is_fast():
            return None
        image = self.inputs.reshape(1, -1, *self.inputs.shape[2:])
        own = self.sources[1].shape
        shape = (self.n * gradient.shape[1], *own[1:])
        unread = gradient.new_empty(shape)  # only its shape matters for its own gradient
        _, weight, _ = torch.ops.aten.convolution_backward(
            gradient.reshape(1, -1, *gradient.shape[2:]),
            image,
            unread,
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            [0] * len(self.kernel),
            self.n * self.groups,
            [False, True, False],
        )
        return weight.reshape(self.n, -1)

    def _grouped_is_fast(self) -> bool:
        """Libraries have kernels for many groups; the fallback of other dtypes goes through the groups one by one."""
        if self.inputs.device.type != "cpu":
            return True
        return self.dtype == torch.float32 and bool(
            torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
        )

    def _by_patches(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """``(n · groups, o, T)`` and patches ``(n · groups, T, Πk · c)``, in the roles of the weight's axes."""
        if self.transposed:
            plain, patches = self.inputs, self._cut(gradient, tuple(self.inputs.shape[2:]))
        else:
            if self._patches is None:
                self._patches = self._cut(self.inputs, tuple(gradient.shape[2:]))
            plain, patches = gradient, self._patches
        frames, groups = self.axis.positions, self.groups
        t, i = patches.shape[2:]
        plain = plain.reshape(self.n, frames, groups, -1, t).permute(0, 2, 3, 1, 4)
        patches = patches.reshape(self.n, frames, groups, t, i).transpose(1, 2)
        o = plain.shape[2]
        return plain.reshape(self.n * groups, o, -1), patches.reshape(self.n * groups, -1, i)
